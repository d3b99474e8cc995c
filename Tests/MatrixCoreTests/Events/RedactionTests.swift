import Testing

@testable import MatrixCore

/// Room Versions, Redactions of each version.
@Suite("Redaction") struct RedactionTests {
    /// An event with every top-level key that any version mentions and one that none does.
    func event(_ version: RoomVersion, _ type: String, _ content: JSON) throws -> Event {
        var room = try RoomBuilder.room(version)
        var json = try room.add(type, sender: "@creator:hs", stateKey: "x", content: content).root.json
        for key in ["membership", "origin", "prev_state", "unknown", "redacts", "event_id"] where json[key] == nil {
            json[key] = "x"
        }
        return try Event(receiving: json.encoded(), version: version)
    }

    @Test("top-level keys", arguments: RoomVersion.all)
    func topLevel(version: RoomVersion) throws {
        let redacted = try event(version, "org.example", ["a": 1]).redacted()
        var expected: Set = [
            "event_id", "type", "room_id", "sender", "state_key", "content", "hashes", "signatures", "depth",
            "prev_events",
            "auth_events", "origin_server_ts",
        ]
        if version.number <= 10 { expected.formUnion(["prev_state", "origin", "membership"]) }
        #expect(Set(redacted.root.members.map(\.key)) == expected)
        #expect(redacted.content.count == 0)
    }

    /// What each type keeps, and from which version on.
    static let kept: [(type: String, key: String, first: Int, last: Int)] = [
        ("m.room.member", "membership", 1, 12),
        ("m.room.member", "join_authorised_via_users_server", 9, 12),
        ("m.room.create", "creator", 1, 12),
        ("m.room.create", "room_version", 11, 12),
        ("m.room.create", "anything", 11, 12),
        ("m.room.join_rules", "join_rule", 1, 12),
        ("m.room.join_rules", "allow", 8, 12),
        ("m.room.power_levels", "ban", 1, 12),
        ("m.room.power_levels", "events", 1, 12),
        ("m.room.power_levels", "events_default", 1, 12),
        ("m.room.power_levels", "kick", 1, 12),
        ("m.room.power_levels", "redact", 1, 12),
        ("m.room.power_levels", "state_default", 1, 12),
        ("m.room.power_levels", "users", 1, 12),
        ("m.room.power_levels", "users_default", 1, 12),
        ("m.room.power_levels", "invite", 11, 12),
        ("m.room.power_levels", "notifications", 99, 99),
        ("m.room.aliases", "aliases", 1, 5),
        ("m.room.history_visibility", "history_visibility", 1, 12),
        ("m.room.redaction", "redacts", 11, 12),
        ("m.room.redaction", "reason", 99, 99),
        ("m.room.topic", "topic", 99, 99),
        ("m.room.message", "membership", 99, 99),
    ]

    @Test("what content keeps", arguments: RoomVersion.all)
    func content(version: RoomVersion) throws {
        let types = Set(Self.kept.map(\.type)).filter { version.rules.roomIDs == .withDomain || $0 != "m.room.create" }
        for type in types {
            let rows = Self.kept.filter { $0.type == type }
            var content: JSON = ["zzz": 1]
            for row in rows { content[row.key] = ["v": [1, "x"]] }
            let redacted = try event(version, type, content).redacted()
            var expected = Set(rows.filter { $0.first <= version.number && version.number <= $0.last }.map(\.key))
            if type == "m.room.create", version.number >= 11 { expected.insert("zzz") }
            #expect(Set(redacted.content.members.map(\.key)) == expected, "\(type)")
            for key in expected where key != "zzz" { #expect(redacted.content[key]?.json == ["v": [1, "x"]]) }
        }
    }

    @Test("from version 11 on a member event keeps the signed part of a third-party invite", arguments: RoomVersion.all)
    func thirdPartyInvite(version: RoomVersion) throws {
        let content: JSON = [
            "membership": "invite", "third_party_invite": ["display_name": "x", "signed": ["token": "t"]],
        ]
        let redacted = try event(version, "m.room.member", content).redacted()
        let expected: JSON? = version.number >= 11 ? ["signed": ["token": "t"]] : nil
        #expect(redacted.content["third_party_invite"]?.json == expected)
    }

    @Test("a type that is only canonically equivalent to another keeps nothing of it")
    func equivalentType() throws {
        // U+037E, the Greek question mark, is canonically equivalent to a semicolon; U+212A to the letter K.
        let redacted = try event(.v11, "m.room.member\u{301}", ["membership": "join"]).redacted()
        #expect(redacted.content.count == 0)
    }
}
