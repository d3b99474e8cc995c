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

    @Test("an upgraded room lets in no guests that the old one kept out, and says nothing that was redacted")
    func keepsOut() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let old = try await server.room(of: alice, version: "10") { $0.preset = .publicChat }
        #expect(try await state(server, old, "m.room.guest_access", alice) == nil)
        let topic = try await server.homeserver.sending.setState(
            StateKey("m.room.topic"), content: ["topic": "regretted"], in: old, by: alice)
        let name = try await server.homeserver.sending.setState(
            StateKey("m.room.name"), content: ["name": "regretted"], in: old, by: alice)
        for (number, event) in [topic, name].enumerated() {
            _ = try await server.homeserver.sending.send(
                "m.room.redaction", content: [:], to: old, transactionID: "\(number)", redacts: event, by: alice)
        }
        try await server.homeserver.memberships.invite(bob.userID, to: old, reason: nil, by: alice)
        let invited = try await server.sync(bob)["rooms"]?["invite"]?[old.string]
        #expect(invited != nil && !String(decoding: invited?.raw ?? [], as: UTF8.self).contains("regretted"))
        let new = try await server.homeserver.creation.upgrade(old, to: "11", additionalCreators: [], by: alice)
        #expect(try await state(server, new, "m.room.guest_access", alice)?["guest_access"]?.string == "forbidden")
        #expect(try await state(server, new, "m.room.topic", alice)?["topic"] == nil)
        #expect(try await state(server, new, "m.room.name", alice)?["name"] == nil)
        // What was redacted can be set again.
        let again = try await server.homeserver.sending.setState(
            StateKey("m.room.topic"), content: ["topic": "regretted"], in: new, by: alice)
        let redaction = try await server.homeserver.sending.send(
            "m.room.redaction", content: ["redacts": .string(again.string)], to: new, transactionID: "again",
            redacts: again, by: alice)
        #expect(redaction != again)
        let third = try await server.homeserver.sending.setState(
            StateKey("m.room.topic"), content: ["topic": "regretted"], in: new, by: alice)
        #expect(third != again)
        #expect(try await state(server, new, "m.room.topic", alice)?["topic"]?.string == "regretted")
        await server.close()
    }

    @Test("levels that are written as texts, as old versions allow, are numbers in the new room")
    func levelsAsTexts() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let old = try await server.room(of: alice, version: "9")
        _ = try await server.homeserver.sending.setState(
            .powerLevels,
            content: [
                "users": [alice.userID.string: "100", bob.userID.string: "50"], "state_default": "50", "ban": " 50 ",
                "events": ["m.room.name": "50"],
            ], in: old, by: alice)
        let new = try await server.homeserver.creation.upgrade(old, to: "11", additionalCreators: [], by: alice)
        let levels = try await state(server, new, "m.room.power_levels", alice)
        #expect(levels?["users"]?[bob.userID.string]?.integer == 50 && levels?["ban"]?.integer == 50)
        #expect(levels?["events"]?["m.room.name"]?.integer == 50)
        await server.close()
    }
}
