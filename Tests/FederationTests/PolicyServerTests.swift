import Homeserver
import MatrixCore
import RoostTestSupport
import Synchronization
import Testing

@testable import Database

/// Server-Server API, "Policy Servers".
@Suite("Rooms with a policy server")
struct PolicyServerTests {
    private final class Silence: Sendable {
        private let state = Mutex(false)
        var isKept: Bool {
            get { state.withLock { $0 } }
            set { state.withLock { $0 = newValue } }
        }
    }

    /// Two servers in a room, and a policy server that signs everything but spam.
    private struct Scene {
        let scene: FederationScene
        let alice: Requester
        let bob: Requester
        let room: RoomID
        let policy: HostileServer
        let evil: HostileServer
        let mallory: UserID
        let place: HostileServer.Place
        /// Whether the policy server is gone.
        let silence = Silence()
        let key = SigningKey(seed: [UInt8](repeating: 31, count: 32), version: "policy_server")!

        init() async throws {
            scene = try await FederationScene(2)
            alice = try await scene[0].user("alice")
            bob = try await scene[1].user("bob")
            room = try await scene[0].room(of: alice, version: "11")
            let name = scene[0].configuration.serverName
            try await scene[1].homeserver.memberships.join(room, reason: nil, via: [name], by: bob)
            policy = HostileServer("policy.example", on: scene.network, clock: scene[0].clock, seed: 11)
            _ = try await policy.join(room, as: policy.user("guard"), at: name)
            evil = HostileServer("evil.example", on: scene.network, clock: scene[0].clock)
            mallory = evil.user("mallory")
            place = try await evil.join(room, as: mallory, at: name)
            let (server, key, silence) = (policy.name, key, silence)
            scene.network.forge { request in
                guard !silence.isKept, request.destination == server, request.target == "/_matrix/policy/v1/sign" else {
                    return nil
                }
                let version = RoomVersion.v11
                guard let body = request.body, let event = try? Event(receiving: body, version: version) else {
                    return ServerResponse(status: 400, body: Array(#"{"errcode":"M_BAD_JSON","error":"?"}"#.utf8))
                }
                if String(decoding: body, as: UTF8.self).contains("spam") {
                    return ServerResponse(
                        status: 400, body: Array(#"{"errcode":"M_FORBIDDEN","error":"No spam here"}"#.utf8))
                }
                guard let signed = try? event.addingSignature(by: key, as: server),
                    let own = signed.root["signatures"]?[server.string]
                else { return nil }
                return ServerResponse(status: 200, body: JSON.object([server.string: own.json]).encoded())
            }
        }

        func enable(key other: SigningKey? = nil) async throws {
            _ = try await scene[0].homeserver.sending.setState(
                .policy,
                content: [
                    "via": .string(policy.name.string),
                    "public_keys": ["ed25519": .string(Base64.encode((other ?? key).publicKey))],
                ], in: room, by: alice)
            try await scene.eventually("the other server knows it") {
                let state = try await scene[1].homeserver.reading.state(of: room, for: bob)
                return String(decoding: state, as: UTF8.self).contains("public_keys")
            }
        }

        /// How often a server has asked.
        func questions(by index: Int) -> Int {
            scene.network.exchanges.count {
                $0.from == scene[index].configuration.serverName && $0.target == "/_matrix/policy/v1/sign"
            }
        }

        func isSigned(_ event: EventID, on index: Int) async throws -> Bool {
            guard let stored = try await scene[index].homeserver.database.event(event) else { return false }
            return String(decoding: stored.json, as: UTF8.self).contains(RoomPolicy.keyID)
        }
    }

    private func message(_ text: String) -> JSON { ["msgtype": "m.text", "body": .string(text)] }

    @Test("what is said has its signature, and nobody else has to ask for it")
    func signed() async throws {
        let scene = try await Scene()
        try await scene.enable()
        let said = try await scene.scene[0].say("hello", in: scene.room, by: scene.alice)
        #expect(try await scene.isSigned(said, on: 0))
        try await scene.scene.eventually("the other server has it") {
            try await scene.scene.texts(in: scene.room, for: scene.bob, on: scene.scene[1]) == ["hello"]
        }
        #expect(try await scene.isSigned(said, on: 1))
        #expect(scene.questions(by: 0) == 1 && scene.questions(by: 1) == 0)
        await scene.scene.close()
    }

    @Test("what it refuses is not sent, its reason is told as it is, and what others say at the same time is sent")
    func refused() async throws {
        let scene = try await Scene()
        try await scene.enable()
        let (server, alice, room) = (scene.scene[0], scene.alice, scene.room)
        let results = await withTaskGroup(of: (String, MatrixError?).self) { group in
            for text in (0..<8).map({ $0 % 3 == 1 ? "spam \($0)" : "fine \($0)" }) {
                group.addTask {
                    do {
                        try await server.say(text, in: room, by: alice)
                        return (text, nil)
                    } catch { return (text, error as? MatrixError) }
                }
            }
            return await group.reduce(into: []) { $0.append($1) }
        }
        for (text, error) in results {
            #expect((error != nil) == text.contains("spam"))
            if let error { #expect(error.message == "No spam here" && error.code == .forbidden && error.status == 400) }
        }
        let texts = try await scene.scene.texts(in: room, for: alice, on: server)
        #expect(texts.count == 5 && texts.allSatisfy { $0.contains("fine") })
        await #expect(throws: MatrixError.self) {
            _ = try await server.homeserver.sending.setState(
                StateKey("m.room.name"), content: ["name": "spam"], in: room, by: alice)
        }
        await scene.scene.close()
    }

    @Test("an event without its signature is asked about; one that it doesn't sign is soft-failed")
    func received() async throws {
        let scene = try await Scene()
        try await scene.enable()
        let name = scene.scene[0].configuration.serverName
        let fine = try scene.evil.event("m.room.message", content: message("fine"), by: scene.mallory, in: scene.place)
        let spam = try scene.evil.event("m.room.message", content: message("spam"), by: scene.mallory, in: scene.place)
        let other = SigningKey(seed: [UInt8](repeating: 32, count: 32), version: "policy_server")!
        let forged = try scene.evil.event(
            "m.room.message", content: message("spam, signed by itself"), by: scene.mallory, in: scene.place
        ).addingSignature(by: other, as: scene.policy.name)
        for (number, event) in [fine, spam, forged, spam].enumerated() {
            try await scene.evil.send([event.root.json], id: "policy\(number)", to: name)
        }
        let database = scene.scene[0].homeserver.database
        #expect(try await scene.scene.texts(in: scene.room, for: scene.alice, on: scene.scene[0]) == ["fine"])
        #expect(try await scene.isSigned(fine.eventID, on: 0))
        for event in [spam, forged] {
            #expect(try await database.event(event.eventID)?.flags.contains(.softFailed) == true)
        }
        // What was refused once is not asked about again.
        #expect(scene.questions(by: 0) == 3)
        await scene.scene.close()
    }

    @Test("a policy server that doesn't answer holds nothing up for long, and can be done without")
    func silent() async throws {
        let scene = try await Scene()
        try await scene.enable()
        scene.silence.isKept = true
        let server = scene.scene[0]
        for _ in 0..<5 {
            await #expect(throws: MatrixError.self) { try await server.say("hello", in: scene.room, by: scene.alice) }
        }
        // It rests: of five attempts one has waited for it.
        #expect(scene.questions(by: 0) == 1)
        scene.scene[0].clock.advance(by: 60_000)
        await #expect(throws: MatrixError.self) { try await server.say("hello", in: scene.room, by: scene.alice) }
        #expect(scene.questions(by: 0) == 2)
        // Other rooms don't know of it.
        let second = try await server.room(of: scene.alice)
        try await server.say("here, too", in: second, by: scene.alice)
        // The room's own settings are nobody's to refuse: it goes on without.
        _ = try await server.homeserver.sending.setState(.policy, content: [:], in: scene.room, by: scene.alice)
        try await server.say("free", in: scene.room, by: scene.alice)
        #expect(try await scene.scene.texts(in: scene.room, for: scene.alice, on: server) == ["free"])
        await scene.scene.close()
    }

    @Test("a policy server that has no user in the room, or is named wrongly, is none")
    func absent() async throws {
        let scene = try await Scene()
        let contents: [JSON] = [
            ["via": "absent.example", "public_keys": ["ed25519": .string(Base64.encode(scene.key.publicKey))]],
            ["via": .string(scene.policy.name.string)], ["via": .string(scene.policy.name.string), "public_keys": []],
            ["via": 5, "public_keys": ["ed25519": 5]], ["via": "not a name", "public_keys": ["ed25519": "x"]],
        ]
        for content in contents {
            _ = try await scene.scene[0].homeserver.sending.setState(
                .policy, content: content, in: scene.room, by: scene.alice)
            try await scene.scene[0].say("hello", in: scene.room, by: scene.alice)
        }
        #expect(scene.questions(by: 0) == 0)
        await scene.scene.close()
    }

    @Test("a signature by another key than the room's is none")
    func otherKey() async throws {
        let scene = try await Scene()
        try await scene.enable(key: SigningKey(seed: [UInt8](repeating: 33, count: 32), version: "policy_server")!)
        await #expect(throws: MatrixError.self) {
            try await scene.scene[0].say("hello", in: scene.room, by: scene.alice)
        }
        #expect(try await scene.scene.texts(in: scene.room, for: scene.alice, on: scene.scene[0]) == [])
        await scene.scene.close()
    }
}
