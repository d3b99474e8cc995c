import Database
import MatrixCore
import RoostTestSupport
import Testing

@testable import Homeserver

/// What people see of one another: directory, presence, those they ignore.
@Suite("People", .onEachEngine)
struct PeopleTests {
    private func found(_ server: TestServer, _ term: String, by user: Requester) async throws -> [String] {
        let answer = try await server.homeserver.userDirectory.search(term, limit: 10, for: user)
        return answer["results"]?.arrayValue?.compactMap { $0["user_id"]?.stringValue } ?? []
    }

    @Test(
        "A22 people are found by the beginnings of their names, by those who share a room or where everybody may look")
    func directory() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob-the-builder")
        let carol = try await server.user("carol")
        try await server.homeserver.profiles.set("displayname", to: "Robert Baumeister", for: bob)
        #expect(try await found(server, "rob", by: alice) == [])
        let room = try await server.room(of: alice) { $0.preset = .privateChat }
        try await server.homeserver.memberships.invite(bob.userID, to: room, reason: nil, by: alice)
        #expect(try await found(server, "rob", by: alice) == [])
        try await server.homeserver.memberships.join(room, reason: nil, by: bob)
        for term in ["rob", "BAUM", "robert baum", "bob-the", "build", "@bob-the-builder:localhost"] {
            #expect(try await found(server, term, by: alice) == [bob.userID.string], "\(term)")
        }
        for term in ["", "ert", "robert smith", "@"] {
            #expect(try await found(server, term, by: alice) == [], "\(term)")
        }
        #expect(try await found(server, "rob", by: carol) == [])
        let open = try await server.room(of: bob)
        #expect(try await found(server, "rob", by: carol) == [bob.userID.string])
        _ = try await server.homeserver.sending.setState(
            .joinRules, content: ["join_rule": "invite"], in: open, by: bob)
        #expect(try await found(server, "rob", by: carol) == [])
        _ = try await server.homeserver.sending.setState(
            .historyVisibility, content: ["history_visibility": "world_readable"], in: open, by: bob)
        #expect(try await found(server, "rob", by: carol) == [bob.userID.string])
        _ = try await server.homeserver.deactivation.deactivate("bob-the-builder")
        #expect(try await found(server, "rob", by: carol) == [])
        await server.close()
    }

    @Test("presence is seen by those who share a room, and ends when nothing is heard any more")
    func presence() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let carol = try await server.user("carol")
        let room = try await server.room(of: alice)
        try await server.homeserver.memberships.join(room, reason: nil, by: bob)
        let presence = server.homeserver.presence
        func told(_ sync: JSONView) -> [String: String] {
            var told: [String: String] = [:]
            for event in sync["presence"]?["events"]?.elements.map({ $0 }) ?? [] {
                told[event["sender"]?.string ?? ""] = event["content"]?["presence"]?.string
            }
            return told
        }
        let first = try await server.sync(alice)
        let since = try #require(first["next_batch"]?.string)
        let other = try #require(try await server.sync(carol)["next_batch"]?.string)
        try await presence.set(.online, status: "here", for: bob)
        // Changes are told a second later; a sync that waits hears of it.
        let waiting = Task {
            var since = since
            for _ in 0..<20 {
                let sync = try await server.sync(alice, since: since, timeout: 60_000)
                since = try #require(sync["next_batch"]?.string)
                if let state = told(sync)[bob.userID.string] { return state }
            }
            return "never told"
        }
        server.clock.advance(by: 1_000)
        #expect(try await waiting.value == "online")
        #expect(told(try await server.sync(carol, since: other))[bob.userID.string] == nil)
        let content = try await presence.status(of: bob.userID, for: alice)
        #expect(content["status_msg"] == "here")
        await #expect(throws: MatrixError.self) { try await presence.status(of: bob.userID, for: carol) }
        server.clock.advance(by: PresenceService.devicePatience + 20_000)
        server.clock.advance(by: 2_000)
        #expect(try await presence.status(of: bob.userID, for: alice)["presence"] == "offline")
        await server.close()
    }

    @Test("who is ignored is heard of by nobody who ignores them, but for state")
    func ignoring() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let room = try await server.room(of: alice)
        try await server.homeserver.memberships.join(room, reason: nil, by: bob)
        let list: JSON = ["ignored_users": .object(JSONObject([(bob.userID.string, JSON.object([:]))]))]
        try await server.homeserver.accountData.set(
            "m.ignored_user_list", to: try JSONDocument(parsing: list.encoded()).root, in: nil, for: alice)
        let since = try #require(try await server.sync(alice)["next_batch"]?.string)
        try await server.say("hello?", in: room, by: bob)
        let other = try await server.room(of: bob) { $0.preset = .privateChat }
        try await server.homeserver.memberships.invite(alice.userID, to: other, reason: nil, by: bob)
        try await server.homeserver.profiles.set("displayname", to: "B", for: bob)
        try await server.say("me", in: room, by: alice)
        let sync = try await server.sync(alice, since: since)
        let types = sync["rooms"]?["join"]?[room.string]?["timeline"]?["events"]?.elements.compactMap {
            $0["type"]?.string
        }
        #expect(types == ["m.room.member", "m.room.message"])
        #expect(sync["rooms"]?["invite"] == nil)
        #expect(try await server.history(of: room, for: alice) == ["me"])
        #expect(try await server.history(of: room, for: bob) == ["me", "hello?"])
        await server.close()
    }
}
