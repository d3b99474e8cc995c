import Homeserver
import MatrixCore
import RoostTestSupport
import Testing

@testable import Database

@Suite("What no inlet takes, and what no server offers")
struct InletTests {
    /// Events that are none, made from one that is: larger than events may be, with numbers and texts that canonical JSON doesn't have.
    private func malformed(_ event: Event) -> [(String, [UInt8])] {
        let text = String(decoding: event.json, as: UTF8.self)
        func changed(_ body: String, _ more: String) -> [UInt8] {
            Array(text.replacing(#""body":"good""#, with: #""body":\#(body)\#(more)"#).utf8)
        }
        return [
            (
                "larger than 65,536 bytes",
                changed(#""good""#, #","filler":"\#(String(repeating: "x", count: 66_000))""#)
            ),
            ("a float", changed(#""good""#, #","n":1.5"#)),
            ("an exponent", changed(#""good""#, #","n":1e3"#)),
            ("an integer beyond 2^53", changed(#""good""#, #","n":9007199254740993"#)),
            ("a key twice", changed(#""good""#, #","msgtype":"m.text","msgtype":"m.notice""#)),
            ("a lone surrogate", changed(#""\ud800""#, "")),
            (
                "deep nesting",
                changed(
                    #""good""#, #","n":\#(String(repeating: "[", count: 3_000) + String(repeating: "]", count: 3_000))"#
                )
            ),
            ("no type", Array(text.replacing(#""type":"m.room.message""#, with: #""kind":"m.room.message""#).utf8)),
            ("a long type", Array(text.replacing("m.room.message", with: String(repeating: "m", count: 256)).utf8)),
            ("a depth below zero", Array(text.replacing(#""depth":"#, with: #""depth":-"#).utf8)),
        ]
    }

    private func good(_ scene: HostileScene, _ text: String = "good") throws -> Event {
        try scene.evil.event(
            "m.room.message", content: ["body": .string(text), "msgtype": "m.text"], by: scene.mallory, in: scene.place)
    }

    /// A request whose body is sent as it is: what isn't canonical can't be signed otherwise.
    private func raw(
        _ method: String, _ target: String, _ body: [UInt8], _ scene: HostileScene
    ) async throws -> Int {
        let signature = RequestSignature(
            signing: method, target: target, content: body, from: scene.evil.name, to: scene.name, with: scene.evil.key)
        return try await scene.scene.network.transport(of: scene.evil.name).send(
            ServerRequest(
                method: method, destination: scene.name, target: target,
                headers: [("Authorization", signature.header)], body: body, timeout: 10_000, mostBytes: 1 << 20)
        ).status
    }

    /// How many events the server has stored.
    private func stored(_ scene: HostileScene) async throws -> Int64 {
        try await scene.server.homeserver.database.read { reader in
            try await reader.query(Statement("SELECT count(*) FROM events"), []) { $0.integer(0) }.first ?? -1
        }
    }

    @Test("A11 A18 an event that is none gets in by no transaction, join, leave, knock or invitation")
    func requests() async throws {
        let scene = try await HostileScene()
        let event = try good(scene)
        let before = try await stored(scene)
        let room = HostileServer.quote(scene.room.string), id = HostileServer.quote(event.eventID.string)
        for (number, (what, bytes)) in malformed(event).enumerated() {
            let pdus = Array(#"{"origin":"evil.example","origin_server_ts":1,"pdus":["#.utf8) + bytes + Array("]}".utf8)
            let status = try await raw("PUT", "/_matrix/federation/v1/send/bad\(number)", pdus, scene)
            #expect([200, 400, 401, 413].contains(status), "\(what) in a transaction: \(status)")
            for target in [
                "/_matrix/federation/v2/send_join/\(room)/\(id)", "/_matrix/federation/v1/send_join/\(room)/\(id)",
                "/_matrix/federation/v2/send_leave/\(room)/\(id)", "/_matrix/federation/v1/send_knock/\(room)/\(id)",
            ] {
                let status = try await raw("PUT", target, bytes, scene)
                #expect((400..<500).contains(status), "\(what) at \(target): \(status)")
            }
            let invite = Array(#"{"room_version":"11","invite_room_state":[],"event":"#.utf8) + bytes + Array("}".utf8)
            let invited = try await raw("PUT", "/_matrix/federation/v2/invite/\(room)/\(id)", invite, scene)
            #expect((400..<500).contains(invited), "\(what) as an invitation: \(invited)")
        }
        #expect(try await stored(scene) == before)
        // And the room goes on.
        try await scene.evil.send([event.root.json], id: "good", to: scene.name)
        #expect(try await scene.isShown(event))
        await scene.scene.close()
    }

    @Test("A11 an event that is none comes in by no answer, and what stands beside it comes in")
    func answers() async throws {
        let scene = try await HostileScene()
        let first = try good(scene)
        let bad = malformed(first).map { (what: $0.0, bytes: $0.1) }
        let last = try scene.evil.event(
            "m.room.message", content: scene.message("last"), by: scene.mallory, in: scene.place,
            previous: [first.eventID])
        // As texts, since such numbers can't be held as JSON.
        let own = scene.evil.name
        let list =
            (bad.filter { $0.what != "deep nesting" && $0.what != "a lone surrogate" }.map(\.bytes) + [first.json])
            .map { String(decoding: $0, as: UTF8.self) }.joined(separator: ",")
        scene.scene.network.forge { request in
            guard request.destination == own, request.target.contains("/get_missing_events/") else { return nil }
            return ServerResponse(status: 200, body: Array(#"{"events":[\#(list)]}"#.utf8))
        }
        let before = try await stored(scene)
        try await scene.evil.send([last.root.json], id: "last", to: scene.name)
        try await scene.scene.eventually("what is good is there") { try await scene.isShown(last) }
        #expect(try await scene.isShown(first))
        #expect(try await stored(scene) == before + 2)
        await scene.scene.close()
    }

    @Test("an endpoint that there isn't is 404, a method that there isn't 405, both M_UNRECOGNIZED")
    func unknownEndpoints() async throws {
        let scene = try await HostileScene()
        for (method, target, status) in [
            ("GET", "/_matrix/federation/v1/nothing", 404), ("GET", "/_matrix/federation/v9/version", 404),
            ("GET", "/_matrix/federation/v1/make_join", 404), ("POST", "/_matrix/policy/v1/sign", 404),
            ("DELETE", "/_matrix/federation/v1/version", 405), ("GET", "/_matrix/federation/v1/send/x", 405),
            ("POST", "/_matrix/key/v2/server", 405), ("PUT", "/_matrix/federation/v1/user/keys/query", 405),
        ] {
            let answer = try await scene.evil.ask(method, target, method == "GET" ? nil : [:], of: scene.name)
            #expect(answer.status == status, "\(method) \(target)")
            #expect(answer.root["errcode"]?.isString("M_UNRECOGNIZED") == true, "\(method) \(target)")
        }
        await scene.scene.close()
    }

    @Test("a room of a version that one of the two doesn't know is refused by its code, whoever asks")
    func unknownVersions() async throws {
        let scene = try await HostileScene()
        let user = HostileServer.quote(scene.evil.user("other").string), room = HostileServer.quote(scene.room.string)
        for (operation, query) in [
            ("make_join", ""), ("make_join", "?ver=1&ver=99"), ("make_knock", "?ver=10"), ("make_join", "?ver=011"),
        ] {
            let answer = try await scene.evil.ask(
                "GET", "/_matrix/federation/v1/\(operation)/\(room)/\(user)\(query)", of: scene.name)
            #expect(answer.status == 400 && answer.root["errcode"]?.isString("M_INCOMPATIBLE_ROOM_VERSION") == true)
            #expect(answer.root["room_version"]?.isString("11") == true)
        }
        let event = try good(scene)
        let invite = try await scene.evil.ask(
            "PUT", "/_matrix/federation/v2/invite/\(room)/\(HostileServer.quote(event.eventID.string))",
            ["room_version": "99", "event": event.root.json, "invite_room_state": []], of: scene.name)
        #expect(invite.status == 400 && invite.root["errcode"]?.isString("M_INCOMPATIBLE_ROOM_VERSION") == true)
        // A room elsewhere of a version from the future.
        scene.answer("/make_join/") { _ in ["room_version": "99", "event": [:]] }
        await #expect(throws: MatrixError.self) {
            try await scene.server.homeserver.memberships.join(
                RoomID(unchecked: "!future:evil.example"), reason: nil, via: [scene.evil.name], by: scene.alice)
        }
        await scene.scene.close()
    }

    @Test("a server that the room puts out while its events are on their way gets none of them in")
    func accessControlMeanwhile() async throws {
        let held = HeldTransports()
        let scene = try await FederationScene(
            1, wrap: { held.add($0) { $0.destination.string == "third.example" } })
        let alice = try await scene[0].user("alice")
        let room = try await scene[0].room(of: alice, version: "11")
        let name = scene[0].configuration.serverName
        let evil = HostileServer("evil.example", on: scene.network, clock: scene[0].clock)
        let mallory = evil.user("mallory")
        let place = try await evil.join(room, as: mallory, at: name)
        let said = try evil.event(
            "m.room.message", content: ["msgtype": "m.text", "body": "on its way"], by: mallory, in: place)
        // Beside it an event of a server whose keys take their time.
        let other = try evil.event(
            "m.room.message", content: ["msgtype": "m.text", "body": "x"], by: UserID(unchecked: "@a:third.example"),
            in: place, as: ServerName(unchecked: "third.example"))
        let answer = try await withThrowingTaskGroup(of: [String: String].self) { group in
            group.addTask {
                try await evil.send([said.root.json, other.root.json], id: "slow", to: name).errors
            }
            try await scene.eventually("the keys are asked for") { !held[0].held.isEmpty }
            _ = try await scene[0].homeserver.sending.setState(
                .serverACL, content: ["allow": ["*"], "deny": ["evil.example"]], in: room, by: alice)
            held[0].letGo()
            return try await group.next() ?? [:]
        }
        #expect(answer[said.eventID.string]?.contains("access control list") == true)
        #expect(try await scene[0].homeserver.database.event(said.eventID) == nil)
        await scene.close()
    }
}
