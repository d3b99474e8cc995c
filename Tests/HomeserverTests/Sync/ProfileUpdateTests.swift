import MatrixCore
import RoostTestSupport
import Testing

@testable import Homeserver

@Suite("Updates of profiles", .onEachEngine)
struct ProfileUpdateTests {
    private static let filter = #"{"org.matrix.msc4429.profile_fields":{"ids":["m.status","displayname"]}}"#
    private static let body: JSON = [
        "lists": ["all": ["range": [0, 9], "timeline_limit": 1, "required_state": [:]]],
        "extensions": ["org.matrix.msc4262.profiles": ["enabled": true, "fields": ["m.status", "displayname"]]],
    ]

    private func updates(_ answer: JSONView, of user: Requester) -> JSONView? {
        answer["org.matrix.msc4429.users"]?[user.userID.string]?["profile_updates"]
    }

    private func sliding(_ answer: JSONView) -> JSONView? {
        answer["extensions"]?["org.matrix.msc4262.profiles"]?["users"]
    }

    @Test("those who share a room, and one's own other devices, are told; strangers and who didn't ask aren't")
    func sharing() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob"),
            eve = try await server.user("eve")
        let room = try await server.room(of: alice)
        try await server.homeserver.memberships.join(room, reason: nil, by: bob)
        let profiles = server.homeserver.profiles
        try await profiles.set("m.status", to: ["text": "at sea"], for: alice)
        var since: [Requester: String] = [:]
        var pos: [Requester: String] = [:]
        for user in [alice, bob, eve] {
            let whole = try await server.sync(user, filter: Self.filter)
            since[user] = try #require(whole["next_batch"]?.string)
            #expect(updates(whole, of: alice)?["m.status"]?["text"]?.string == (user == eve ? nil : "at sea"))
            let first = try await server.slidingSync(user, Self.body)
            pos[user] = try #require(first["pos"]?.string)
            #expect(
                sliding(first)?[alice.userID.string]?["updated"]?["m.status"]?["text"]?.string
                    == (user == eve ? nil : "at sea"))
        }
        // A waiting sync wakes for it.
        let here = try #require(since[bob])
        let waiting = Task { try await server.sync(bob, since: here, timeout: 30_000, filter: Self.filter) }
        try await profiles.set("m.status", to: nil, for: alice)
        #expect(updates(try await waiting.value, of: alice)?["m.status"]?.isNull == true)
        try await profiles.set("org.other", to: 7, for: alice)
        try await profiles.set("displayname", to: "Al", for: alice)
        for user in [alice, bob] {
            let told = updates(try await server.sync(user, since: since[user], filter: Self.filter), of: alice)
            #expect(told?["m.status"]?.isNull == true)
            #expect(told?["displayname"]?.string == "Al")
            #expect(told?["org.other"] == nil)
            #expect(try await server.sync(user, since: since[user])["org.matrix.msc4429.users"] == nil)
            let answer = try await server.slidingSync(user, Self.body, pos: pos[user])
            let change = sliding(answer)?[alice.userID.string]
            #expect(change?["updated"]?["displayname"]?.string == "Al")
            #expect(change?["removed"]?.elements.compactMap(\.string) == ["m.status"])
            let after = try await server.slidingSync(user, Self.body, pos: try #require(answer["pos"]?.string))
            #expect(sliding(after) == nil)
        }
        #expect(
            try await server.sync(eve, since: since[eve], filter: Self.filter)["org.matrix.msc4429.users"] == nil)
        #expect(sliding(try await server.slidingSync(eve, Self.body, pos: pos[eve])) == nil)
        await server.close()
    }

    @Test("with lazily loaded members, people are introduced when the room shows them first")
    func lazily() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob"),
            carol = try await server.user("carol"), dave = try await server.user("dave")
        let room = try await server.room(of: alice) { $0.name = "Room" }
        for user in [bob, carol, dave] { try await server.homeserver.memberships.join(room, reason: nil, by: user) }
        let profiles = server.homeserver.profiles
        for user in [alice, carol, dave] { try await profiles.set("m.status", to: "here", for: user) }
        try await server.say("first", in: room, by: alice)
        var body = Self.body
        body["lists"]?["all"]?["required_state"] = ["include": [[:]], "lazy_members": true]
        var pos: String?
        func next() async throws -> Set<String> {
            let answer = try await server.slidingSync(bob, body, pos: pos)
            pos = try #require(answer["pos"]?.string)
            return Set(
                sliding(answer)?.members.filter { $0.value["updated"]?["m.status"]?.isString("here") == true }.map(
                    \.key)
                    ?? [])
        }
        #expect(try await next() == [alice.userID.string])
        try await server.say("second", in: room, by: carol)
        #expect(try await next() == [carol.userID.string])
        try await server.say("third", in: room, by: carol)
        #expect(try await next().isEmpty)
        // Who has left and shares no room is nobody's business any more.
        try await server.say("fourth", in: room, by: dave)
        try await server.homeserver.memberships.leave(room, reason: nil, by: dave)
        #expect(try await next().isEmpty)
        await server.close()
    }

    @Test("a field that is asked for later is told of all who are shown, and so is the extension when it begins later")
    func later() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let room = try await server.room(of: alice)
        try await server.homeserver.memberships.join(room, reason: nil, by: bob)
        for field in ["m.status", "org.other"] {
            try await server.homeserver.profiles.set(field, to: "here", for: alice)
        }
        for state: JSON in [[:], ["lazy_members": true]] {
            var pos: String?
            func next(_ fields: JSON?) async throws -> [String] {
                var body = Self.body
                body["lists"]?["all"]?["required_state"] = state
                body["lists"]?["all"]?["timeline_limit"] = 20
                body["extensions"]?["org.matrix.msc4262.profiles"]?["fields"] = fields
                if fields == JSON.null { body["extensions"] = [:] }
                let answer = try await server.slidingSync(bob, body, pos: pos)
                pos = try #require(answer["pos"]?.string)
                return sliding(answer)?[alice.userID.string]?["updated"]?.members.map(\.key).sorted() ?? []
            }
            #expect(try await next(.null) == [])
            #expect(try await next(["m.status"]) == ["m.status"], "\(state)")
            #expect(try await next(["m.status"]) == [], "\(state)")
            #expect(try await next(["org.other", "m.status"]) == ["m.status", "org.other"], "\(state)")
            #expect(try await next(["m.status", "org.other"]) == [], "\(state)")
        }
        await server.close()
    }

    @Test("who comes to share a room is introduced, and who shares none any more is let go")
    func movements() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let room = try await server.room(of: alice)
        try await server.homeserver.profiles.set("m.status", to: "here", for: alice)
        var since = try #require(try await server.sync(bob, filter: Self.filter)["next_batch"]?.string)
        var pos = try #require(try await server.slidingSync(bob, Self.body)["pos"]?.string)
        try await server.homeserver.memberships.join(room, reason: nil, by: bob)
        var answer = try await server.sync(bob, since: since, filter: Self.filter)
        since = try #require(answer["next_batch"]?.string)
        #expect(updates(answer, of: alice)?["m.status"]?.string == "here")
        answer = try await server.slidingSync(bob, Self.body, pos: pos)
        pos = try #require(answer["pos"]?.string)
        #expect(sliding(answer)?[alice.userID.string]?["updated"]?["m.status"]?.string == "here")
        try await server.homeserver.memberships.leave(room, reason: nil, by: bob)
        #expect(
            updates(try await server.sync(bob, since: since, filter: Self.filter), of: alice)?.isNull == true)
        #expect(sliding(try await server.slidingSync(bob, Self.body, pos: pos))?[alice.userID.string]?.isNull == true)
        await server.close()
    }
}
