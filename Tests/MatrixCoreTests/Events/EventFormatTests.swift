import Testing

@testable import MatrixCore

/// Room Versions, Event format; Client-Server API, Size limits.
@Suite("Event format") struct EventFormatTests {
    func json(_ version: RoomVersion) throws -> JSON {
        var room = try RoomBuilder.room(version)
        return try room.add("org.example", sender: "@creator:hs", stateKey: "k", content: ["a": 1]).root.json
    }

    func error(_ version: RoomVersion, _ change: (inout JSON) -> Void) throws -> EventError? {
        var json = try json(version)
        change(&json)
        do {
            _ = try Event(receiving: json.encoded(), version: version)
            return nil
        } catch { return error }
    }

    @Test("a field that is missing or of the wrong type makes it no event", arguments: RoomVersion.all)
    func fields(version: RoomVersion) throws {
        var fields = [
            "type", "sender", "content", "origin_server_ts", "depth", "prev_events", "auth_events", "hashes",
            "signatures", "room_id",
        ]
        if version.number <= 2 { fields.append("event_id") }
        for field in fields {
            #expect(try error(version) { $0[field] = nil } == .missing(field: field))
            for wrong in [nil, true, 1.5] as [JSON] {
                #expect(try error(version) { $0[field] = wrong } != nil, "\(field)")
            }
        }
        #expect(try error(version) { $0["state_key"] = nil } == nil)
        #expect(try error(version) { $0["state_key"] = 1 } == .wrongType(field: "state_key"))
        #expect(try error(version) { $0["hashes"] = [:] } == .missing(field: "hashes.sha256"))
        #expect(try error(version) { $0["hashes"] = ["sha256": 1] } == .wrongType(field: "hashes.sha256"))
        #expect(try error(version) { $0["signatures"] = ["hs": "x"] } == .wrongType(field: "signatures"))
        #expect(try error(version) { $0["signatures"] = ["hs": ["ed25519:1": 1]] } == .wrongType(field: "signatures"))
        #expect(try error(version) { $0["depth"] = -1 } == .wrongType(field: "depth"))
        #expect(try error(version) { $0["depth"] = 9_007_199_254_740_991 } == nil)
        #expect(try error(version) { $0["depth"] = .integer(.max) } == nil || version.number >= 6)
    }

    @Test("identifiers have the format of the room version", arguments: RoomVersion.all)
    func identifiers(version: RoomVersion) throws {
        #expect(try error(version) { $0["sender"] = "creator" } == .invalidIdentifier(field: "sender"))
        #expect(try error(version) { $0["sender"] = "@:hs" } == nil)
        let hash = "31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM"
        let hasDomain = version.number < 12
        #expect((try error(version) { $0["room_id"] = "!a:hs" } == nil) == hasDomain)
        #expect((try error(version) { $0["room_id"] = .string("!" + hash) } == nil) == !hasDomain)
        let standard = "$31hneApxJ/1o+63DmFrpeqnkFfWppnzWso1JvH3ogLM"
        for field in ["prev_events", "auth_events"] {
            let forms: [(JSON, ClosedRange<Int>)] = [
                (["$a:hs", [:]], 1...2), (.string(standard), 3...3), (.string("$" + hash), 4...12), ("$a:hs", 99...99),
                (["$a:hs"], 99...99), (["$a:hs", "x"], 99...99), ([5, [:]], 99...99), (["$a", [:]], 99...99),
                ("$short", 99...99), (nil, 99...99),
            ]
            for (form, versions) in forms {
                #expect(
                    (try error(version) { $0[field] = [form] } == nil) == versions.contains(version.number), "\(form)")
            }
        }
        if version.number <= 2 {
            #expect(try error(version) { $0["event_id"] = "$abc" } == .invalidIdentifier(field: "event_id"))
        }
    }

    @Test("at most 20 previous and 10 auth events", arguments: RoomVersion.all)
    func counts(version: RoomVersion) throws {
        let one = try #require(json(version)["prev_events"]?.arrayValue?.first)
        func many(_ count: Int) -> JSON { .array(Array(repeating: one, count: count)) }
        #expect(try error(version) { $0["prev_events"] = many(20) } == nil)
        #expect(try error(version) { $0["prev_events"] = many(21) } == .tooMany(field: "prev_events", limit: 20))
        #expect(try error(version) { $0["auth_events"] = many(10) } == nil)
        #expect(try error(version) { $0["auth_events"] = many(11) } == .tooMany(field: "auth_events", limit: 10))
    }

    @Test("A11 fields have at most 255 bytes, not characters", arguments: RoomVersion.all)
    func fieldLengths(version: RoomVersion) throws {
        for field in ["type", "state_key"] {
            #expect(try error(version) { $0[field] = .string(String(repeating: "a", count: 255)) } == nil)
            #expect(
                try error(version) { $0[field] = .string(String(repeating: "a", count: 256)) }
                    == .fieldTooLong(field: field))
            #expect(
                try error(version) { $0[field] = .string(String(repeating: "é", count: 128)) }
                    == .fieldTooLong(field: field))
        }
        #expect(try error(version) { $0["sender"] = .string("@" + String(repeating: "a", count: 251) + ":hs") } == nil)
        #expect(try error(version) { $0["sender"] = .string("@" + String(repeating: "a", count: 252) + ":hs") } != nil)
    }

    @Test("A11 the edge of 65,536 bytes of canonical JSON", arguments: RoomVersion.all)
    func size(version: RoomVersion) throws {
        var base = try json(version)
        base["content"] = ["body": ""]
        let room = Event.maxBytes - (try Event(receiving: base.encoded(), version: version).json.count)
        #expect(try error(version) { $0["content"] = ["body": .string(String(repeating: "x", count: room))] } == nil)
        #expect(
            try error(version) { $0["content"] = ["body": .string(String(repeating: "x", count: room + 1))] }
                == .tooLarge(bytes: 65_537))
        // A character of two bytes counts twice, an escape as what it stands for, unsigned not at all.
        #expect(
            try error(version) { $0["content"] = ["body": .string(String(repeating: "é", count: room / 2 + 1))] } != nil
        )
        let escaped = JSON.raw(Array("\"\(String(repeating: "\\u0078", count: room))\"".utf8))
        #expect(try error(version) { $0["content"] = ["body": escaped] } == nil)
        #expect(
            try error(version) {
                $0["content"] = ["body": .string(String(repeating: "x", count: room))]
                $0["unsigned"] = ["age": 1]
            } == nil)
    }

    @Test("A11 numbers that are not canonical: refused from version 6 on", arguments: RoomVersion.all)
    func numbers(version: RoomVersion) throws {
        for text in ["1.0", "1e3", "9007199254740992", "-9007199254740992", "-0"] {
            let found = try error(version) { $0["content"] = ["n": .raw(Array(text.utf8))] }
            #expect((found == nil) == (version.number <= 5), "\(text)")
        }
        #expect(try error(version) { $0["content"] = ["n": 9_007_199_254_740_991] } == nil)
    }

    @Test(
        "A11 malformed JSON is no event",
        arguments: [
            #"{"content":{"a":1,"a":2}}"#, #"{"content":{"a":"\ud800"}}"#, "[]", "null", "\"x\"", "{", "",
        ])
    func malformed(text: String) {
        for version in RoomVersion.all {
            #expect(throws: EventError.self) { try Event(receiving: Array(text.utf8), version: version) }
        }
        let deep = String(repeating: "[", count: 200) + String(repeating: "]", count: 200)
        #expect(throws: EventError.self) {
            try Event(receiving: Array(#"{"content":{"a":\#(deep)}}"#.utf8), version: .v11)
        }
    }

    @Test("A11 NUL is a character like others in content and refused in identifiers")
    func nul() throws {
        #expect(try error(.v11) { $0["content"] = ["body": "a\u{0}b"] } == nil)
        #expect(try error(.v11) { $0["sender"] = "@a\u{0}:hs" } == .invalidIdentifier(field: "sender"))
    }

    @Test("A12 an event has another ID, or none, by the rules of another version")
    func wrongVersion() throws {
        let json = try json(.v10).encoded()
        let v3 = try? Event(receiving: json, version: .v3)
        let v10 = try Event(receiving: json, version: .v10)
        #expect(v3?.eventID != v10.eventID)
        #expect(throws: EventError.self) { try Event(receiving: json, version: .v1) }
        #expect(throws: EventError.self) { try Event(receiving: json, version: .v12) }
        // Redaction decides about the ID: what version 11 no longer keeps is not in its hash.
        var withOrigin = try self.json(.v10)
        withOrigin["origin"] = "hs"
        let ten = try Event(receiving: withOrigin.encoded(), version: .v10)
        let eleven = try Event(receiving: withOrigin.encoded(), version: .v11)
        #expect(ten.eventID != eleven.eventID)
        #expect(eleven.eventID == v10.eventID)
    }

    @Test("A12 a state of another version's room allows nothing")
    func stateOfAnotherVersion() throws {
        let other = try Scene(.v9)
        var scene = try Scene(.v10)
        let event = try scene.event("m.room.message", by: Scene.user)
        let create = other.room.events[0]
        scene.room.replaceState(create)
        #expect(scene.refusal(event) == .createRoomVersion)
    }

    @Test("templates refuse what would be no event", arguments: RoomVersion.all)
    func templates(version: RoomVersion) throws {
        var room = try RoomBuilder.room(version)
        #expect(throws: EventError.self) {
            try room.make("x", sender: "@creator:hs", content: ["n": 1.5])
        }
        #expect(throws: EventError.self) { try room.make("x", sender: "@creator:hs", content: []) }
        #expect(throws: EventError.self) {
            try room.make("x", sender: "@creator:hs", content: ["b": .string(String(repeating: "x", count: 66_000))])
        }
    }
}
