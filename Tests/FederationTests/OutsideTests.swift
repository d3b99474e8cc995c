import Homeserver
import MatrixCore
import RoostTestSupport
import Testing

@testable import Database

@Suite("Coming and going between servers")
struct OutsideTests {
    private func place(of room: RoomID, for user: Requester, on server: TestServer, since: String? = nil) async throws
        -> String?
    {
        let rooms = try await server.sync(user, since: since)["rooms"]
        return ["join", "invite", "knock", "leave"].first { rooms?[$0]?[room.string] != nil }
    }

    private func membership(of user: UserID, in room: RoomID, for member: Requester, on server: TestServer) async throws
        -> String?
    {
        let state = try? await server.homeserver.reading.state(
            of: room, key: .member(user), wholeEvent: false, for: member)
        return try state.flatMap { try JSONDocument(parsing: $0).root["membership"]?.string }
    }

    @Test("an invitation that is taken back is gone on the other server, and a ban, too", arguments: [false, true])
    func rescinded(isBan: Bool) async throws {
        let scene = try await FederationScene(2)
        let alice = try await scene[0].user("alice")
        let bob = try await scene[1].user("bob")
        let room = try await scene[0].room(of: alice) { $0.preset = .privateChat }
        try await scene[0].homeserver.memberships.invite(bob.userID, to: room, reason: nil, by: alice)
        let since = try await scene[1].sync(bob)["next_batch"]?.string
        #expect(try await place(of: room, for: bob, on: scene[1]) == "invite")
        try await scene[0].homeserver.memberships.remove(
            bob.userID, from: room, isBan ? .ban : .kick, reason: nil, by: alice)
        try await scene.eventually("the invitation is gone") {
            try await place(of: room, for: bob, on: scene[1], since: since) == "leave"
        }
        #expect(try await place(of: room, for: bob, on: scene[1]) == nil)
        await #expect(throws: MatrixError.self) {
            try await scene[1].homeserver.memberships.join(room, reason: nil, by: bob)
        }
        #expect(try await ConsistencyCheck(scene[1].homeserver.database).run().problems == [])
        if isBan {
            await scene.close()
            return
        }
        // Invited again, bob is in.
        try await scene[0].homeserver.memberships.invite(bob.userID, to: room, reason: nil, by: alice)
        #expect(try await place(of: room, for: bob, on: scene[1]) == "invite")
        try await scene[1].homeserver.memberships.join(room, reason: nil, by: bob)
        #expect(try await place(of: room, for: bob, on: scene[1]) == "join")
        try await scene.eventually("all members are known") {
            try await scene[1].homeserver.database.room(room)?.partialJoin == nil
        }
        #expect(try await ConsistencyCheck(scene[1].homeserver.database).run().problems == [])
        await scene.close()
    }

    @Test("who takes an invitation up while it is still being turned down is in the room")
    func turnedDownAndTakenUp() async throws {
        let first = ServerName(unchecked: "hs1.example")
        let held = HeldTransports()
        let scene = try await FederationScene(
            2, wrap: { held.add($0) { $0.destination == first && $0.target.contains("/make_leave/") } })
        let alice = try await scene[0].user("alice")
        let bob = try await scene[1].user("bob")
        let room = try await scene[0].room(of: alice) { $0.preset = .privateChat }
        try await scene[0].homeserver.memberships.invite(bob.userID, to: room, reason: nil, by: alice)
        async let leaving: Void = scene[1].homeserver.memberships.leave(room, reason: nil, by: bob)
        try await scene.eventually("the leave is under way") { held[1].held.count == 1 }
        try await scene[1].homeserver.memberships.join(room, reason: nil, by: bob)
        // Nobody can be told of the leave.
        let second = scene[1].configuration.serverName
        scene.network.cut(from: second, to: first)
        held[1].letGo()
        try await leaving
        scene.network.mendAll()
        #expect(try await place(of: room, for: bob, on: scene[1]) == "join")
        #expect(try await membership(of: bob.userID, in: room, for: alice, on: scene[0]) == "join")
        #expect(try await ConsistencyCheck(scene[1].homeserver.database).run().problems == [])
        await scene.close()
    }

    @Test("a server that has nothing to do with an invitation can't take it back")
    func foreignRescission() async throws {
        let scene = try await FederationScene(2)
        let alice = try await scene[0].user("alice")
        let bob = try await scene[1].user("bob")
        let room = try await scene[0].room(of: alice, version: "11") { $0.preset = .privateChat }
        try await scene[0].homeserver.memberships.invite(bob.userID, to: room, reason: nil, by: alice)
        let evil = HostileServer("evil.example", on: scene.network, clock: scene[0].clock)
        let hash = EventID(unchecked: "$" + String(repeating: "A", count: 43))
        for sender in [evil.user("mallory"), alice.userID] {
            let event = try EventTemplate(
                version: .v11, roomID: room, sender: sender, type: "m.room.member", stateKey: bob.userID.string,
                content: ["membership": "leave"], prevEvents: [hash], authEvents: [hash], depth: 9,
                originServerTS: 1_700_000_000_000
            ).signed(by: evil.key, as: evil.name)
            try await evil.send(
                [event.root.json], id: sender.localpart, to: scene[1].configuration.serverName)
        }
        #expect(try await place(of: room, for: bob, on: scene[1]) == "invite")
        await scene.close()
    }

    @Test("who knocks is let in, or turned down, and hears of it")
    func knocking() async throws {
        let scene = try await FederationScene(2)
        let alice = try await scene[0].user("alice")
        let bob = try await scene[1].user("bob")
        let name = scene[0].configuration.serverName
        func roomWithDoor() async throws -> RoomID {
            try await scene[0].room(of: alice) { request in
                request.preset = .privateChat
                request.name = "Behind a door"
                request.initialState = [.init(key: .joinRules, content: ["join_rule": "knock"])]
            }
        }
        let first = try await roomWithDoor(), second = try await roomWithDoor()
        for room in [first, second] {
            try await scene[1].homeserver.memberships.knock(room, reason: "please", via: [name], by: bob)
            #expect(try await membership(of: bob.userID, in: room, for: alice, on: scene[0]) == "knock")
            let knock = try await scene[1].sync(bob)["rooms"]?["knock"]?[room.string]
            #expect(knock.map { String(decoding: $0.raw, as: UTF8.self).contains("Behind a door") } == true)
        }
        let since = try await scene[1].sync(bob)["next_batch"]?.string
        try await scene[0].homeserver.memberships.invite(bob.userID, to: first, reason: nil, by: alice)
        #expect(try await place(of: first, for: bob, on: scene[1], since: since) == "invite")
        try await scene[1].homeserver.memberships.join(first, reason: nil, by: bob)
        try await scene[0].homeserver.memberships.remove(bob.userID, from: second, .kick, reason: nil, by: alice)
        try await scene.eventually("the refusal is heard") {
            try await place(of: second, for: bob, on: scene[1], since: since) == "leave"
        }
        #expect(try await ConsistencyCheck(scene[1].homeserver.database).run().problems == [])
        await scene.close()
    }

    @Test("a room can be left when every other server of it is gone, and they hear of it when they are back")
    func leavingAlone() async throws {
        let scene = try await FederationScene(2)
        let alice = try await scene[0].user("alice")
        let bob = try await scene[1].user("bob")
        let name = scene[0].configuration.serverName
        let room = try await scene[0].room(of: alice)
        try await scene[1].homeserver.memberships.join(room, reason: nil, via: [name], by: bob)
        try await scene.eventually("all members are known") {
            try await scene[1].homeserver.database.room(room)?.partialJoin == nil
        }
        scene.network.cut(name)
        try await scene[1].homeserver.memberships.leave(room, reason: nil, by: bob)
        #expect(try await place(of: room, for: bob, on: scene[1]) == nil)
        #expect(try await scene[1].homeserver.reading.joinedRooms(of: bob) == [])
        // Coming back needs somebody.
        await #expect(throws: MatrixError.self) {
            try await scene[1].homeserver.memberships.join(room, reason: nil, via: [name], by: bob)
        }
        scene.network.mend(name)
        try await scene.eventually("the leave is heard") {
            try await membership(of: bob.userID, in: room, for: alice, on: scene[0]) == "leave"
        }
        try await scene[1].homeserver.memberships.join(room, reason: nil, via: [name], by: bob)
        await scene.close()
    }

    @Test("a room of another server shows itself to those who may know of it")
    func summary() async throws {
        let scene = try await FederationScene(2)
        let alice = try await scene[0].user("alice")
        let bob = try await scene[1].user("bob")
        let open = try await scene[0].room(of: alice) {
            $0.name = "Open house"
            $0.aliasName = "open"
        }
        let closed = try await scene[0].room(of: alice) { $0.preset = .privateChat }
        let via = [scene[0].configuration.serverName]
        let spaces = scene[1].homeserver.spaces
        for name in [open.string, "#open:hs1.example"] {
            let shown = try await spaces.summary(of: name, via: via, for: bob)
            #expect(shown["room_id"] == .string(open.string) && shown["name"] == "Open house")
            #expect(shown["membership"] == "leave" && shown["num_joined_members"] == 1)
            #expect(shown["children_state"] == nil)
        }
        // Nobody has this server ask others without an account.
        let before = scene.network.exchanges.count
        for name in [open.string, "#open:hs1.example"] {
            await #expect(throws: MatrixError.self) { try await spaces.summary(of: name, via: via, for: nil) }
        }
        #expect(scene.network.exchanges.count == before)
        await #expect(throws: MatrixError.self) { try await spaces.summary(of: closed.string, via: via, for: bob) }
        await scene.close()
    }

    @Test("another server's search for spaces finds no other rooms")
    func publishedSpaces() async throws {
        let scene = try await FederationScene(1)
        let alice = try await scene[0].user("alice")
        for type in [nil, "m.space"] {
            let room = try await scene[0].room(of: alice) {
                if let type { $0.creationContent = ["type": .string(type)] }
            }
            try await scene[0].homeserver.directory.setPublished(true, room, by: alice)
        }
        let other = HostileServer("other.example", on: scene.network, clock: scene[0].clock)
        for (types, count) in [(["m.space"], 1), ([nil], 1), (["m.space", nil], 2)] as [([JSON], Int)] {
            let answer = try await other.ask(
                "POST", "/_matrix/federation/v1/publicRooms", ["filter": ["room_types": .array(types)]],
                of: scene[0].configuration.serverName)
            #expect(answer.root["chunk"]?.count == count)
        }
        await scene.close()
    }
}
