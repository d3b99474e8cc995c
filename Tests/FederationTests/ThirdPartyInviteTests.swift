import Homeserver
import MatrixCore
import RoostTestSupport
import Testing

@testable import Database

@Suite("Invitations of people known by an e-mail address")
struct ThirdPartyInviteTests {
    private struct Scene {
        let scene: FederationScene
        let alice: Requester
        let bob: Requester
        let room: RoomID
        let identity = SigningKey(seed: [UInt8](repeating: 21, count: 32), version: "0")!
        let stranger = SigningKey(seed: [UInt8](repeating: 22, count: 32), version: "0")!

        /// A room in which alice has invited an e-mail address.
        init() async throws {
            scene = try await FederationScene(2)
            alice = try await scene[0].user("alice")
            bob = try await scene[1].user("bob")
            room = try await scene[0].room(of: alice) { $0.preset = .privateChat }
            let key = JSON.string(Base64.encode(identity.publicKey))
            _ = try await scene[0].homeserver.sending.setState(
                StateKey("m.room.third_party_invite", "token"),
                content: [
                    "display_name": "b…@e…", "key_validity_url": "https://id.example/valid", "public_key": key,
                    "public_keys": [["public_key": key]],
                ], in: room, by: alice)
        }

        func signed(_ user: UserID, by key: SigningKey) throws -> JSON {
            try key.sign(["mxid": .string(user.string), "token": "token"], as: ServerName(unchecked: "id.example"))
        }

        /// What an identity server tells a user's server; it doesn't say who it is.
        func bind(_ user: UserID, signed: JSON, at server: TestServer) async throws -> Int {
            let address: JSON = ["medium": "email", "address": "bob@example.org", "mxid": .string(user.string)]
            var invite = address
            invite["room_id"] = .string(room.string)
            invite["sender"] = .string(alice.userID.string)
            invite["signed"] = signed
            var body = address
            body["invites"] = [invite, "nonsense", ["room_id": 5], ["signed": []]]
            let transport = scene.network.transport(of: ServerName(unchecked: "id.example"))
            return try await transport.send(
                ServerRequest(
                    method: "PUT", destination: server.configuration.serverName,
                    target: "/_matrix/federation/v1/3pid/onbind", headers: [("Content-Type", "application/json")],
                    body: body.encoded(), timeout: 10_000, mostBytes: 10_000)
            ).status
        }

        func membership(of user: UserID) async throws -> String? {
            let state = try? await scene[0].homeserver.reading.state(
                of: room, key: .member(user), wholeEvent: false, for: alice)
            return try state.flatMap { try JSONDocument(parsing: $0).root["membership"]?.string }
        }
    }

    @Test(
        "once the address is somebody's, that user's server asks the inviter's for the invitation, which lets the user in"
    )
    func exchange() async throws {
        let scene = try await Scene()
        let bob = scene.bob
        let signed = try scene.signed(bob.userID, by: scene.identity)
        #expect(try await scene.bind(bob.userID, signed: signed, at: scene.scene[1]) == 200)
        #expect(try await scene.scene[1].sync(bob)["rooms"]?["invite"]?[scene.room.string] != nil)
        #expect(try await scene.membership(of: bob.userID) == "invite")
        try await scene.scene[1].homeserver.memberships.join(scene.room, reason: nil, by: bob)
        #expect(try await scene.membership(of: bob.userID) == "join")
        await scene.scene.close()
    }

    @Test("a server that is in the room makes the invitation itself, and the inviter's server hears of it")
    func inRoom() async throws {
        let scene = try await Scene()
        let carol = try await scene.scene[1].user("carol")
        try await scene.scene[0].homeserver.memberships.invite(
            carol.userID, to: scene.room, reason: nil, by: scene.alice)
        try await scene.scene[1].homeserver.memberships.join(scene.room, reason: nil, by: carol)
        let signed = try scene.signed(scene.bob.userID, by: scene.identity)
        let asked = scene.scene.network.exchanges.count
        #expect(try await scene.bind(scene.bob.userID, signed: signed, at: scene.scene[1]) == 200)
        try await scene.scene.eventually("the inviter's server knows") {
            try await scene.membership(of: scene.bob.userID) == "invite"
        }
        #expect(
            !scene.scene.network.exchanges.dropFirst(asked).contains {
                $0.target.contains("exchange_third_party_invite")
            })
        await scene.scene.close()
    }

    @Test("what no key of the invitation has signed, or is of another user, invites nobody")
    func forged() async throws {
        let scene = try await Scene()
        let evil = HostileServer("evil.example", on: scene.scene.network, clock: scene.scene[0].clock)
        let bob = scene.bob.userID
        let forged = try scene.signed(bob, by: scene.stranger)
        #expect(try await scene.bind(bob, signed: forged, at: scene.scene[1]) == 200)
        #expect(try await scene.membership(of: bob) == nil)
        // A right proof in the wrong hands.
        let right = try scene.signed(bob, by: scene.identity)
        for (user, signed) in [(bob, right), (evil.user("mallory"), right), (evil.user("mallory"), forged)] {
            let answer = try await evil.ask(
                "PUT",
                "/_matrix/federation/v1/exchange_third_party_invite/\(HostileServer.quote(scene.room.string))",
                [
                    "type": "m.room.member", "room_id": .string(scene.room.string),
                    "sender": .string(scene.alice.userID.string), "state_key": .string(user.string),
                    "content": [
                        "membership": "invite", "third_party_invite": ["display_name": "x", "signed": signed],
                    ],
                ], of: scene.scene[0].configuration.serverName)
            #expect(answer.status == 403 || answer.status == 400)
            #expect(try await scene.membership(of: user) == nil)
        }
        await scene.scene.close()
    }
}
