import MatrixCore
import RoostTestSupport
import Testing

@testable import Homeserver

/// Client-Server API, "Room History Visibility", rule by rule: bob is invited, joins, leaves; a message falls before and
/// after each step.
@Suite("Who sees what of a room's history", .onEachEngine)
struct VisibilityTests {
    @Test(
        "A20: members see what the room's visibility allows, and nothing of what comes after leaving",
        arguments: [
            ("world_readable", ["before", "invited", "joined"]), ("shared", ["before", "invited", "joined"]),
            ("invited", ["invited", "joined"]), ("joined", ["joined"]),
        ])
    func historyOfMember(visibility: String, expected: [String]) async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let room = try await server.room(of: alice) {
            $0.preset = .privateChat
            $0.initialState = [.init(key: .historyVisibility, content: ["history_visibility": .string(visibility)])]
        }
        let memberships = server.homeserver.memberships
        let before = try await server.say("before", in: room, by: alice)
        try await memberships.invite(bob.userID, to: room, reason: nil, by: alice)
        try await server.say("invited", in: room, by: alice)
        try await memberships.join(room, reason: nil, by: bob)
        try await server.say("joined", in: room, by: alice)
        #expect(try await server.history(of: room, for: bob, page: 2) == expected.reversed())
        try await memberships.leave(room, reason: nil, by: bob)
        let after = try await server.say("after", in: room, by: alice)
        _ = try await server.homeserver.sending.setState(
            StateKey("m.room.name"), content: ["name": "a secret name"], in: room, by: alice)
        #expect(try await server.history(of: room, for: bob) == expected.reversed())
        let state = try await server.homeserver.reading.state(of: room, for: bob)
        #expect(!contains(state, "a secret name"))
        await #expect(throws: MatrixError.self) { try await server.homeserver.reading.event(after, in: room, for: bob) }
        if expected.contains("before") {
            _ = try await server.homeserver.reading.event(before, in: room, for: bob)
        } else {
            await #expect(throws: MatrixError.self) {
                try await server.homeserver.reading.event(before, in: room, for: bob)
            }
        }
        // Alice sees it all.
        #expect(try await server.history(of: room, for: alice) == ["after", "joined", "invited", "before"])
        await server.close()
    }

    @Test("the first page of who has left is what was seen last, however much was said since")
    func pageOfWhoLeft() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let room = try await server.room(of: alice)
        try await server.homeserver.memberships.join(room, reason: nil, by: bob)
        try await server.say("seen", in: room, by: alice)
        try await server.homeserver.memberships.leave(room, reason: nil, by: bob)
        for number in 0..<150 { try await server.say("later \(number)", in: room, by: alice) }
        let page =
            try JSONDocument(
                parsing: try await server.homeserver.reading.messages(
                    in: room, .init(from: nil, to: nil, backwards: true, limit: 2, filter: RoomEventFilter()), for: bob)
            ).root["chunk"]?.elements.map { $0 } ?? []
        #expect(page.count == 2)
        #expect(page.first?["state_key"]?.string == bob.userID.string)
        #expect(page.last?["content"]?["body"]?.string == "seen")
        await server.close()
    }

    @Test("A20: of members nobody sees what they were before one could see the room, or became after one left")
    func membersOfOtherTimes() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let room = try await server.room(of: alice) {
            $0.initialState = [.init(key: .historyVisibility, content: ["history_visibility": "joined"])]
        }
        func rename(_ name: String) async throws {
            _ = try await server.homeserver.sending.setState(
                .member(alice.userID), content: ["membership": "join", "displayname": .string(name)], in: room,
                by: alice)
        }
        func members(at token: String?, for user: Requester) async throws -> [UInt8] {
            try await server.homeserver.reading.members(
                of: room, filter: .init(membership: nil, notMembership: nil, at: token), for: user)
        }
        try await rename("before all")
        let early = try #require(try await server.sync(alice)["next_batch"]?.string)
        try await rename("while bob is there")
        try await server.homeserver.memberships.invite(bob.userID, to: room, reason: nil, by: alice)
        try await server.homeserver.memberships.join(room, reason: nil, by: bob)
        try await server.say("hello", in: room, by: alice)
        let middle = try #require(try await server.sync(bob)["next_batch"]?.string)
        #expect(contains(try await members(at: early, for: alice), "before all"))
        #expect(!contains(try await members(at: early, for: bob), "before all"))
        try await rename("later")
        #expect(contains(try await members(at: middle, for: bob), "while bob is there"))
        #expect(contains(try await members(at: nil, for: bob), "later"))
        try await server.homeserver.memberships.leave(room, reason: nil, by: bob)
        try await rename("after all")
        _ = try await server.homeserver.directory.create(
            RoomAlias(unchecked: "#secret:localhost"), for: room, by: alice)
        var filter = RoomEventFilter()
        filter.lazyLoadsMembers = true
        let page = try await server.homeserver.reading.messages(
            in: room, .init(from: nil, to: nil, backwards: true, limit: 50, filter: filter), for: bob)
        #expect(contains(page, "hello") && contains(page, "later") && !contains(page, "after all"))
        await #expect(throws: MatrixError.self) { try await server.homeserver.directory.aliases(of: room, for: bob) }
        await server.close()
    }

    @Test("A20: whoever was only invited, or never there, reads nothing")
    func outsiders() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob"),
            carol = try await server.user("carol")
        let room = try await server.room(of: alice) { $0.preset = .privateChat }
        let event = try await server.say("private", in: room, by: alice)
        try await server.homeserver.memberships.invite(bob.userID, to: room, reason: nil, by: alice)
        func readsNothing(_ user: Requester) async {
            let reading = server.homeserver.reading
            await #expect(throws: MatrixError.self) { try await server.history(of: room, for: user) }
            await #expect(throws: MatrixError.self) { try await reading.state(of: room, for: user) }
            await #expect(throws: MatrixError.self) { try await reading.joinedMembers(of: room, for: user) }
            await #expect(throws: MatrixError.self) { try await reading.event(event, in: room, for: user) }
        }
        await readsNothing(bob)
        await readsNothing(carol)
        // An invitation turned down opens nothing either.
        try await server.homeserver.memberships.leave(room, reason: nil, by: bob)
        await readsNothing(bob)
        await server.close()
    }
}
