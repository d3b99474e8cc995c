import Homeserver
import RoostTestSupport
import Testing

@testable import Database
@testable import MatrixCore

@Suite("Numbers at the ends of 64 bits")
struct ExtremeNumberTests {
    /// An event of the attacker's with other numbers than canonical JSON has, rightly hashed and signed.
    private func event(
        _ text: String, in scene: HostileScene, _ replacements: [(member: String, value: Int64)]
    ) throws -> [UInt8] {
        let good = try scene.evil.event(
            "m.room.message", content: scene.message(text), by: scene.mallory, in: scene.place)
        var bare = good.root.json
        bare["hashes"] = nil
        bare["signatures"] = nil
        for (member, value) in replacements { bare[member] = .integer(value) }
        let view = try JSONDocument(
            parsing: try JSONDocument(parsing: bare.encoded()).root.canonical(numbers: .historical)
        ).root
        let hashes = (
            "hashes", Array(#"{"sha256":"\#(Base64.encode(Hashing.sha256(view.document.bytes)))"}"#.utf8)
        )
        let covered = EventHashing.redacted(
            view, type: "m.room.message", rules: scene.place.version.rules.redaction, adding: hashes)
        let signature: JSON = [
            scene.evil.name.string: [scene.evil.key.keyID: .string(Base64.encode(scene.evil.key.sign(covered)))]
        ]
        return EventHashing.whole(view, adding: [hashes, ("signatures", signature.encoded())])
    }

    /// Sends a transaction whose numbers are sent as they stand.
    private func send(_ event: [UInt8], id: String, _ scene: HostileScene) async throws -> String {
        let body =
            Array(
                #"{"edus":[],"origin":"\#(scene.evil.name)","origin_server_ts":1,"pdus":["#.utf8) + event
            + Array("]}".utf8)
        let target = "/_matrix/federation/v1/send/\(id)"
        let signature = RequestSignature(
            signing: "PUT", target: target, content: body, from: scene.evil.name, to: scene.name, with: scene.evil.key)
        let answer = try await scene.scene.network.transport(of: scene.evil.name).send(
            ServerRequest(
                method: "PUT", destination: scene.name, target: target,
                headers: [("Authorization", signature.header)], body: body, timeout: 10_000, mostBytes: 1 << 20))
        return String(decoding: answer.body, as: UTF8.self)
    }

    @Test("A11 a time or a depth at the ends of 64 bits, which room version 4 allows, brings nobody down")
    func ends() async throws {
        let scene = try await HostileScene(version: "4")
        let since = try #require(try await scene.server.sync(scene.alice)["next_batch"]?.string)
        let numbers: [[(String, Int64)]] = [
            [("origin_server_ts", .min)], [("origin_server_ts", .max)], [("depth", .max)],
            [("origin_server_ts", -1), ("depth", 0)],
        ]
        for (number, replacements) in numbers.enumerated() {
            let event = try event("event \(number)", in: scene, replacements)
            let answer = try await send(event, id: "t\(number)", scene)
            #expect(answer.contains("{}"), "\(answer)")
        }
        // As forward extremities, they are what the next event rests on: of a user here and of one who leaves.
        let leave = try await scene.evil.ask(
            "GET",
            "/_matrix/federation/v1/make_leave/\(HostileServer.quote(scene.room.string))/\(HostileServer.quote(scene.mallory.string))",
            of: scene.name)
        #expect(leave.root["event"]?["depth"]?.integer == 1 << 53 - 1)
        try await scene.server.say("still here", in: scene.room, by: scene.alice)
        for token in [since, nil] {
            let sync = try await scene.server.sync(scene.alice, since: token)
            let events = sync["rooms"]?["join"]?[scene.room.string]?["timeline"]?["events"]?.elements.map { $0 } ?? []
            let shown = events.filter { $0["content"]?["body"]?.string?.hasPrefix("event ") == true }
            #expect(shown.count == numbers.count)
            for event in shown {
                #expect((0...(1 << 53 - 1)).contains(try #require(event["unsigned"]?["age"]?.integer)))
            }
        }
        #expect(try await scene.server.history(of: scene.room, for: scene.alice).first == "still here")
        #expect(try await ConsistencyCheck(scene.server.homeserver.database).run().problems == [])
        await scene.scene.close()
    }
}
