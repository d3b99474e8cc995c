import Database
import MatrixCore
import RoostTestSupport
import Testing

@testable import Homeserver

@Suite("Room upgrades", .onEachEngine)
struct RoomUpgradeTests {
    private func state(_ server: TestServer, _ room: RoomID, _ type: String, _ user: Requester) async throws
        -> JSONView?
    {
        do {
            return try JSONDocument(
                parsing: try await server.homeserver.reading.state(
                    of: room, key: StateKey(type), wholeEvent: false, for: user)
            ).root
        } catch let error as MatrixError where error.code == .notFound { return nil }
    }

    @Test(
        "an upgrade carries over what a room is, its bans and names, and closes the old one",
        arguments: [("6", "10"), ("10", "11"), ("11", "12"), ("12", "12"), ("12", "11")])
    func carries(from: String, to: String) async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let mallory = try await server.user("mallory")
        let old = try await server.room(of: alice, version: from) { request in
            request.name = "Club"
            request.topic = "Things"
            request.aliasName = "club"
            request.isPublished = true
            request.creationContent = ["type": "m.space"]
            request.initialState = [
                .init(key: StateKey("m.room.encryption"), content: ["algorithm": "m.megolm.v1.aes-sha2"])
            ]
        }
        let memberships = server.homeserver.memberships
        try await memberships.join(old, reason: nil, by: bob)
        try await memberships.remove(mallory.userID, from: old, .ban, reason: "spam", by: alice)
        try await server.homeserver.accountData.setTag("m.favourite", to: [:], of: old, for: bob)
        try await server.homeserver.pushRules.put(
            try #require(PushRule(["rule_id": .string(old.string), "actions": []], kind: .room)), kind: .room,
            before: nil, after: nil, of: bob)

        let new = try await server.homeserver.creation.upgrade(old, to: to, additionalCreators: [], by: alice)
        #expect(try await state(server, new, "m.room.name", alice)?["name"]?.string == "Club")
        #expect(try await state(server, new, "m.room.topic", alice)?["topic"]?.string == "Things")
        #expect(
            try await state(server, new, "m.room.encryption", alice)?["algorithm"]?.string == "m.megolm.v1.aes-sha2")
        let create = try await state(server, new, "m.room.create", alice)
        #expect(create?["room_version"]?.string == to)
        #expect(create?["type"]?.string == "m.space")
        #expect(create?["predecessor"]?["room_id"]?.string == old.string)
        #expect(try await state(server, old, "m.room.tombstone", alice)?["replacement_room"]?.string == new.string)
        #expect(try await state(server, old, "m.room.power_levels", alice)?["events_default"]?.integer == 50)
        #expect(try await server.homeserver.directory.resolve("#club:localhost").0 == new)
        let name = "#club:localhost"
        #expect(try await state(server, new, "m.room.canonical_alias", alice)?["alias"]?.string == name)
        #expect(try await server.homeserver.directory.isPublished(new))
        #expect(try await !server.homeserver.directory.isPublished(old))
        await #expect(throws: MatrixError.self) { try await memberships.join(new, reason: nil, by: mallory) }
        await #expect(throws: MatrixError.self) { try await server.say("still here?", in: old, by: bob) }

        try await memberships.join(new, reason: nil, by: bob)
        #expect(try await server.homeserver.accountData.tags(of: new, for: bob)["m.favourite"] != nil)
        let rules = try await server.homeserver.pushRules.rules(of: bob)
        #expect(rules.rule(new.string, kind: .room) != nil)
        await server.close()
    }

    @Test("only who may close a room upgrades it, and only to a version that is known")
    func refusals() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let room = try await server.room(of: alice, version: "11")
        try await server.homeserver.memberships.join(room, reason: nil, by: bob)
        await #expect(throws: MatrixError.self) {
            try await server.homeserver.creation.upgrade(room, to: "12", additionalCreators: [], by: bob)
        }
        await #expect(throws: MatrixError.self) {
            try await server.homeserver.creation.upgrade(room, to: "none", additionalCreators: [], by: alice)
        }
        await server.close()
    }

    @Test("a moderator who may close the room stands in the new one as before")
    func moderator() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let room = try await server.room(of: alice, version: "10") { request in
            request.powerLevels = [
                "users": ["@alice:localhost": 100, "@bob:localhost": 50],
                "events": ["m.room.tombstone": 50, "m.room.server_acl": 100, "m.room.power_levels": 100],
            ]
        }
        try await server.homeserver.memberships.join(room, reason: nil, by: bob)
        let new = try await server.homeserver.creation.upgrade(room, to: "11", additionalCreators: [], by: bob)
        let users = try await state(server, new, "m.room.power_levels", bob)?["users"]
        #expect(users?["@bob:localhost"]?.integer == 50)
        #expect(users?["@alice:localhost"]?.integer == 100)
        await server.close()
    }
}
