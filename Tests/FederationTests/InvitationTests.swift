import Homeserver
import MatrixCore
import RoostTestSupport
import Testing

@testable import Database

@Suite("Invitations to rooms that a server is not in")
struct InvitationTests {
    /// An invitation by a server that may not be in the room, and claims a version for it.
    static func invite(
        _ user: UserID, to room: RoomID, version: RoomVersion, by evil: HostileServer, of server: ServerName
    ) async throws -> (status: Int, event: Event) {
        let create = EventID(unchecked: version.rules.eventIDs == .assigned ? "$create:evil.example" : "$" + hash)
        var template = EventTemplate(
            version: version, roomID: room, sender: evil.user("mallory"), type: "m.room.member",
            stateKey: user.string, content: ["membership": "invite"], prevEvents: [create], authEvents: [create],
            depth: 5, originServerTS: 1_700_000_000_000,
            eventID: version.rules.eventIDs == .assigned
                ? EventID(unchecked: "$\(user.localpart)\(version.identifier):evil.example") : nil)
        template.referenceHashes = [create: [UInt8](repeating: 1, count: 32)]
        let event = try template.signed(by: evil.key, as: evil.name)
        let path =
            "/_matrix/federation/v2/invite/\(HostileServer.quote(room.string))/\(HostileServer.quote(event.eventID.string))"
        let answer = try await evil.ask(
            "PUT", path,
            ["room_version": .string(version.identifier), "event": event.root.json, "invite_room_state": []],
            of: server)
        return (answer.status, event)
    }

    private static let hash = String(repeating: "A", count: 43)

    @Test(
        "A12 an invitation that claims another version doesn't keep anybody out of the room",
        arguments: ["1", "3", "9", "10"])
    func claimedVersion(version: String) async throws {
        let scene = try await FederationScene(2)
        let alice = try await scene[0].user("alice")
        let bob = try await scene[1].user("bob")
        let carol = try await scene[1].user("carol")
        let evil = HostileServer("evil.example", on: scene.network, clock: scene[0].clock)
        let own = scene[1].configuration.serverName
        let room = try await scene[0].room(of: alice, version: "11") { $0.preset = .privateChat }
        let claimed = try #require(RoomVersion.named(version))
        for user in [bob, carol] {
            let answer = try await Self.invite(user.userID, to: room, version: claimed, by: evil, of: own)
            #expect(answer.status == 200)
            #expect(try await scene[1].sync(user)["rooms"]?["invite"]?[room.string] != nil)
        }
        // The true one comes, and lets its user in.
        try await scene[0].homeserver.memberships.invite(bob.userID, to: room, reason: nil, by: alice)
        #expect(try await scene[1].sync(bob)["rooms"]?["invite"]?[room.string] != nil)
        try await scene[1].homeserver.memberships.join(room, reason: nil, by: bob)
        try await scene[1].say("here", in: room, by: bob)
        try await scene.eventually("both talk") {
            try await scene.texts(in: room, for: alice, on: scene[0]) == ["here"]
        }
        #expect(try await scene[1].homeserver.database.room(room)?.version == "11")
        // Who was invited falsely sees that still, and can turn it down; all is as it should be.
        #expect(try await scene[1].sync(carol)["rooms"]?["invite"]?[room.string] != nil)
        #expect(try await ConsistencyCheck(scene[1].homeserver.database).run().problems == [])
        await scene.close()
    }

    @Test("what authorises an invitation that came before the join is known after it")
    func authChain() async throws {
        let scene = try await FederationScene(3)
        let alice = try await scene[0].user("alice")
        let bob = try await scene[1].user("bob")
        let carol = try await scene[2].user("carol")
        let room = try await scene[0].room(of: alice) { $0.preset = .privateChat }
        try await scene[0].homeserver.memberships.invite(bob.userID, to: room, reason: nil, by: alice)
        // The rules by which he was invited are in no state any more: they are found through the invitation alone.
        _ = try await scene[0].homeserver.sending.setState(
            .joinRules, content: ["join_rule": "knock"], in: room, by: alice)
        try await scene[1].homeserver.memberships.join(room, reason: nil, by: bob)
        try await scene[0].homeserver.memberships.invite(carol.userID, to: room, reason: nil, by: alice)
        try await scene.eventually("the invitation is known") {
            let state = try await scene[1].homeserver.reading.state(of: room, for: bob)
            return String(decoding: state, as: UTF8.self).contains("@carol:hs3.example")
        }
        // Carol's server can ask one server alone.
        scene.network.cut(scene[0].configuration.serverName)
        try await scene[2].homeserver.memberships.join(
            room, reason: nil, via: [scene[1].configuration.serverName], by: carol)
        let members = try await scene[2].homeserver.reading.state(of: room, for: carol)
        #expect(String(decoding: members, as: UTF8.self).contains("@bob:hs2.example"))
        try await scene[1].say("welcome", in: room, by: bob)
        try await scene.eventually("they talk") {
            try await scene.texts(in: room, for: carol, on: scene[2]).contains("welcome")
        }
        for server in scene.servers.dropFirst() {
            #expect(try await ConsistencyCheck(server.homeserver.database).run().problems == [])
        }
        await scene.close()
    }
}
