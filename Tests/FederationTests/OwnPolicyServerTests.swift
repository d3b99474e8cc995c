import MatrixCore
import RoostTestSupport
import Testing

@testable import Database
@testable import Homeserver

/// Server-Server API, "Policy Servers": this server is one.
@Suite("A policy server that goes by policy lists")
struct OwnPolicyServerTests {
    /// The first server is the policy server of a room, and goes by a list; people of two others are in the room.
    private struct Scene {
        let scene: FederationScene
        let alice: Requester
        let bob: Requester
        let spammer: Requester
        let room: RoomID
        let list: RoomID
        var policy: TestServer { scene[0] }
        var name: ServerName { scene[0].configuration.serverName }

        init(isEnabled: Bool = true) async throws {
            // The list's ID has to be known before the server goes by it.
            let first = try await FederationScene(1) { $0.policyServer.enabled = isEnabled }
            let alice = try await first[0].user("alice")
            let list = try await first[0].room(of: alice, version: "11")
            await first.close()
            scene = try await FederationScene(3) {
                $0.policyServer.enabled = isEnabled && $0.serverName.string.hasPrefix("hs1")
                $0.policyServer.lists = [list]
            }
            self.alice = try await scene[0].user("alice")
            self.list = try await scene[0].room(of: self.alice, version: "11")
            room = try await scene[0].room(of: self.alice, version: "11")
            bob = try await scene[1].user("bob")
            spammer = try await scene[2].user("spammer")
            for (server, user) in [(scene[1], bob), (scene[2], spammer)] {
                try await server.homeserver.memberships.join(room, reason: nil, via: [name], by: user)
            }
            #expect(list == self.list, "the rooms of a scene follow from its seed")
        }

        func enable() async throws {
            let key = try #require(policy.homeserver.policySigning?.publicKey)
            _ = try await policy.homeserver.sending.setState(
                .policy, content: ["via": .string(name.string), "public_keys": ["ed25519": .string(key)]], in: room,
                by: alice)
            try await scene.eventually("the others know it") {
                for (index, user) in [(1, bob), (2, spammer)] {
                    let state = try await scene[index].homeserver.reading.state(of: room, for: user)
                    guard String(decoding: state, as: UTF8.self).contains("public_keys") else { return false }
                }
                return true
            }
        }

        func ban(_ kind: PolicyRules.Kind, _ entity: String, id: String = "1") async throws {
            _ = try await policy.homeserver.sending.setState(
                StateKey(kind.rawValue, id),
                content: ["entity": .string(entity), "recommendation": "m.ban", "reason": "spam"], in: list, by: alice)
        }

        /// Whether the policy server lets somebody speak.
        func maySpeak(_ user: Requester, on index: Int) async throws -> Bool {
            do {
                // Not twice the same event: what was refused once is.
                let text = "event \(scene.network.exchanges.count)"
                let event = try await scene[index].say(text, in: room, by: user)
                let stored = try await scene[index].homeserver.database.event(event)
                let json = String(decoding: stored?.json ?? [], as: UTF8.self)
                #expect(json.contains(RoomPolicy.keyID))
                return true
            } catch let error as MatrixError {
                #expect(error.code == .forbidden && error.status == 400)
                return false
            }
        }
    }

    @Test("signs what the lists have nothing against, of others and its own, as the lists are now")
    func lists() async throws {
        let scene = try await Scene()
        try await scene.enable()
        #expect(try await scene.maySpeak(scene.alice, on: 0))
        #expect(try await scene.maySpeak(scene.spammer, on: 2))
        try await scene.ban(.user, scene.spammer.userID.string)
        #expect(try await !scene.maySpeak(scene.spammer, on: 2))
        #expect(try await scene.maySpeak(scene.bob, on: 1))
        // A rule that is taken back is none.
        _ = try await scene.policy.homeserver.sending.setState(
            StateKey("m.policy.rule.user", "1"), content: [:], in: scene.list, by: scene.alice)
        #expect(try await scene.maySpeak(scene.spammer, on: 2))
        try await scene.ban(.server, "*3.example")
        #expect(try await !scene.maySpeak(scene.spammer, on: 2))
        #expect(try await scene.maySpeak(scene.bob, on: 1))
        // Who is to be kept out may leave, and isn't invited.
        try await scene.scene[2].homeserver.memberships.leave(scene.room, reason: nil, by: scene.spammer)
        try await scene.scene.eventually("the leave is heard") {
            let members = try await scene.policy.homeserver.reading.joinedMembers(of: scene.room, for: scene.alice)
            return !String(decoding: members, as: UTF8.self).contains("spammer")
        }
        await #expect(throws: MatrixError.self) {
            try await scene.policy.homeserver.memberships.invite(
                scene.spammer.userID, to: scene.room, reason: nil, by: scene.alice)
        }
        await scene.scene.close()
    }

    @Test("answers nobody about rooms that don't name it, nor what is no event, and keeps its key")
    func refusals() async throws {
        let scene = try await Scene()
        let signing = try #require(scene.policy.homeserver.policySigning)
        let asking = scene.scene[1].configuration.serverName
        func code(_ event: JSON) async throws -> MatrixError.Code? {
            do {
                _ = try await signing.sign(event.view, for: asking)
                return nil
            } catch let error as MatrixError { return error.code }
        }
        let room = JSON.string(scene.room.string)
        #expect(try await code(["room_id": room, "type": "m.room.message"]) == .notFound)
        #expect(try await code(["room_id": "!unknown:hs1.example"]) == .notFound)
        #expect(try await code([:]) == .badJSON)
        try await scene.enable()
        #expect(try await code(["room_id": room, "type": "m.room.message"]) == .badJSON)
        let again = try await TestServer(
            directory: scene.policy.directory, clock: ManualSurroundings(seed: 9)
        ) {
            $0.serverName = scene.name
            $0.policyServer.enabled = true
        }
        #expect(again.homeserver.policySigning?.publicKey == signing.publicKey)
        await again.close()
        await scene.scene.close()
    }

    @Test("is none unless the settings say so")
    func off() async throws {
        let scene = try await Scene(isEnabled: false)
        #expect(scene.policy.homeserver.policySigning == nil)
        let evil = HostileServer("evil.example", on: scene.scene.network, clock: scene.policy.clock)
        let answer = try await evil.ask(
            "POST", "/_matrix/policy/v1/sign", ["room_id": .string(scene.room.string)], of: scene.name)
        #expect(answer.status == 404)
        await scene.scene.close()
    }
}
