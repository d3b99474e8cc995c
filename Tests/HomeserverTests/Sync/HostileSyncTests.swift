import MatrixCore
import RoostTestSupport
import Testing

@testable import Homeserver

/// What other people of the same server may do to somebody's sync.
@Suite("Sync, against what is odd", .onEachEngine)
struct HostileSyncTests {
    private static let extensions = [
        "to_device", "e2ee", "account_data", "receipts", "typing", "org.matrix.msc4354.sticky_events",
        "org.matrix.msc4262.profiles", "io.element.msc4308.thread_subscriptions",
    ]

    private static func body(_ filters: JSON = [:]) -> JSON {
        [
            "lists": [
                "all": [
                    "range": [0, 99], "timeline_limit": 50, "filters": filters,
                    "required_state": ["include": [[:]], "lazy_members": true],
                ]
            ],
            "extensions": .object(JSONObject(extensions.map { ($0, ["enabled": true] as JSON) })),
        ]
    }

    /// Whatever is refused does no harm.
    private func attempt(_ act: () async throws -> Void) async throws {
        do { try await act() } catch is MatrixError {}
    }

    private static let odd: [JSON] = [
        7, nil, "x", [], ["a": ["b": [[[[:]]]]]], true, .string(String(repeating: "é", count: 2_000)), "\u{0}",
    ]

    @Test("A13: account data, tags and filters of a user come to an end")
    func withoutEnd() async throws {
        let server = try await TestServer()
        let homeserver = server.homeserver
        let mallory = try await server.user("mallory")
        let room = try await server.room(of: mallory)
        let large: JSON = ["text": .string(String(repeating: "x", count: 900_000))]
        var taken = 0
        await #expect(throws: MatrixError.self) {
            while taken < 100 {
                try await homeserver.accountData.set("large \(taken)", to: large.view, in: nil, for: mallory)
                taken += 1
            }
        }
        #expect((30..<40).contains(taken))
        // What is there can be made smaller.
        try await homeserver.accountData.set("large 0", to: JSON.object([:]).view, in: nil, for: mallory)
        try await homeserver.accountData.set("another", to: JSON.object([:]).view, in: nil, for: mallory)
        await #expect(throws: MatrixError.self) {
            try await homeserver.accountData.setTag("u.large", to: large, of: room, for: mallory)
        }
        let long = String(repeating: "t", count: 256)
        await #expect(throws: MatrixError.self) {
            try await homeserver.accountData.set(long, to: JSON.object([:]).view, in: nil, for: mallory)
        }
        await #expect(throws: MatrixError.self) {
            try await homeserver.filters.put(
                (["room": ["rooms": [.string(String(repeating: "x", count: 70_000))]]] as JSON).view, for: mallory)
        }
        var filters = 0
        await #expect(throws: MatrixError.self) {
            while filters < 2_000 {
                _ = try await homeserver.filters.put(
                    (["room": ["timeline": ["limit": .integer(Int64(filters))]]] as JSON).view, for: mallory)
                filters += 1
            }
        }
        #expect(filters == 1_000)
        await server.close()
    }

    @Test("A17: what is nested as deep as a request may be is read wherever it stands some levels deeper")
    func deep() async throws {
        let server = try await TestServer()
        let homeserver = server.homeserver
        let alice = try await server.user("alice"), mallory = try await server.user("mallory")
        let room = try await server.room(of: alice)
        try await homeserver.memberships.join(room, reason: nil, by: mallory)
        let since = try #require(try await server.sync(alice)["next_batch"]?.string)
        for levels in 90..<99 {
            let deep = (0..<levels).reduce(JSON.array([])) { inner, _ in .array([inner]) }
            let note: JSON = ["deep": deep]
            try await attempt {
                try await homeserver.pushRules.put(
                    PushRule(
                        id: "\(levels)", actions: PushActions([["set_tweak": "x", "value": deep]]),
                        conditions: [PushCondition(["kind": "odd", "deep": deep])]),
                    kind: .underride, before: nil, after: nil, of: mallory)
            }
            try await attempt {
                try await homeserver.accountData.setTag("u.\(levels)", to: note, of: room, for: alice)
            }
            // Twice, so that the second has previous content, one level deeper.
            for number in 0..<2 {
                var content = note
                content["number"] = .integer(Int64(number))
                try await attempt {
                    _ = try await homeserver.sending.setState(
                        StateKey("org.example.deep", "\(levels)"), content: content, in: room, by: alice)
                }
            }
            try await attempt {
                _ = try await homeserver.sending.send(
                    "m.room.message",
                    content: [
                        "deep": deep, "body": "hello mallory",
                        "m.mentions": ["user_ids": [.string(mallory.userID.string)]],
                    ], to: room,
                    transactionID: "\(levels)", by: alice)
            }
        }
        try await server.say("still here", in: room, by: alice)
        for user in [alice, mallory] {
            for filter in ["{}", #"{"event_fields":["content","unsigned","type","event_id","sender"]}"#] {
                for token in [since, nil] {
                    let sync = try await server.sync(user, since: token, filter: filter)
                    let events = sync["rooms"]?["join"]?[room.string]?["timeline"]?["events"]?.elements.map { $0 }
                    #expect(events?.last?["content"]?["body"]?.string == "still here")
                }
            }
            _ = try await homeserver.notificationList.page(from: nil, limit: 50, onlyHighlights: false, for: user)
            _ = try await homeserver.previews.room(room, limit: 50, for: user)
            _ = try await server.slidingSync(user, Self.body())
        }
        #expect(try await homeserver.pushRules.rules(of: mallory)[.underride].contains { $0.id == "95" })
        try await homeserver.pushRules.delete("95", kind: .underride, of: mallory)
        // Rules that each event of a room would be held against for ever are refused; those that are there can be taken away.
        let large = JSON.array(Array(repeating: 0, count: 200_000))
        await #expect(throws: MatrixError.self) {
            for number in 0..<20 {
                try await homeserver.pushRules.put(
                    PushRule(id: "large \(number)", actions: PushActions([["set_tweak": "x", "value": large]])),
                    kind: .override, before: nil, after: nil, of: mallory)
            }
        }
        try await homeserver.pushRules.delete("large 0", kind: .override, of: mallory)
        await server.close()
    }

    @Test("A17: odd keys, messages, relations, states, profiles and notes break no sliding sync, nor the other one")
    func odd() async throws {
        let server = try await TestServer { $0.threads.notifyFollowersOnly = true }
        let homeserver = server.homeserver
        let alice = try await server.user("alice"), mallory = try await server.user("mallory")
        let own = try await server.room(of: alice)
        let den = try await server.room(of: mallory) { $0.creationContent = ["type": 7] }
        try await homeserver.memberships.join(den, reason: nil, by: alice)
        let root = try await server.say("root", in: den, by: alice)
        try await homeserver.threadSubscriptions.subscribe(to: root, in: den, because: nil, by: alice)
        let since = try #require(try await server.sync(alice)["next_batch"]?.string)
        let pos = try #require(try await server.slidingSync(alice, Self.body())["pos"]?.string)

        var keys = SigningTestKey(seed: 1).deviceKeys(of: mallory.userID.string, mallory.deviceID)
        keys["unsigned"] = 7
        keys["org.example.odd"] = ["\u{0}": [.null, [:], "x"]]
        keys["keys"] = ["ed25519:\(mallory.deviceID)": "no base64 at all"]
        _ = try await homeserver.deviceKeys.upload(JSON.object(["device_keys": keys]).view, for: mallory)
        for (number, odd) in Self.odd.enumerated() {
            let contents: [JSON] = [
                ["msgtype": odd, "body": odd], ["m.relates_to": odd], ["m.mentions": odd], ["m.new_content": odd],
                ["m.relates_to": ["rel_type": odd, "event_id": odd]],
                ["m.relates_to": ["rel_type": "m.thread", "event_id": odd, "is_falling_back": odd]],
                ["m.relates_to": ["rel_type": "m.thread", "event_id": .string(root.string)], "body": odd],
                ["m.mentions": ["user_ids": odd, "room": odd]],
                ["m.mentions": ["user_ids": [odd, .string(alice.userID.string)]]],
            ]
            for (index, content) in contents.enumerated() {
                try await attempt {
                    _ = try await homeserver.sending.send(
                        "m.room.message", content: content, to: den, transactionID: "\(number) \(index)",
                        sticky: index == 0 ? 60_000 : nil, by: mallory)
                }
            }
            for (type, key, content) in [
                ("m.room.name", "", ["name": odd]), ("m.room.avatar", "", ["url": odd]),
                ("m.room.encryption", "", ["algorithm": odd]), ("m.room.canonical_alias", "", ["alias": odd]),
                ("m.space.child", own.string, ["via": odd]), ("m.space.child", "no room", ["via": ["localhost"]]),
                ("m.room.history_visibility", "", ["history_visibility": odd]),
                (
                    "m.room.member", mallory.userID.string,
                    ["membership": "join", "displayname": odd, "avatar_url": odd]
                ),
            ] as [(String, String, JSON)] {
                try await attempt {
                    _ = try await homeserver.sending.setState(
                        StateKey(type, key), content: content, in: den, by: mallory)
                }
            }
            try await attempt { try await homeserver.profiles.set("org.example.odd", to: odd, for: mallory) }
            try await attempt { try await homeserver.profiles.set("displayname", to: odd, for: mallory) }
            for (type, room, content) in [
                ("m.direct", nil, ["@x:y": odd, "z": [odd, .string(den.string)]]), ("m.tag", den, ["tags": odd]),
                ("m.ignored_user_list", nil, ["ignored_users": odd]),
            ] as [(String, RoomID?, JSON)] {
                try await attempt {
                    try await homeserver.accountData.set(
                        type, to: try JSONDocument(parsing: content.encoded()).root, in: room, for: alice)
                }
            }
        }
        try await homeserver.memberships.invite(
            alice.userID, to: try await server.room(of: mallory) { $0.creationContent = ["type": [7]] },
            reason: "\u{0}",
            by: mallory)
        let last = try await server.say("the last", in: den, by: mallory)

        let sliding = try await server.slidingSync(alice, Self.body(), pos: pos)
        let told = sliding["rooms"]?[den.string]
        #expect(told?["timeline"]?.elements.map { $0["event_id"]?.string }.last == last.string)
        let changed = sliding["extensions"]?["e2ee"]?["device_lists"]?["changed"]?.elements.compactMap(\.string)
        #expect(changed == [mallory.userID.string])
        #expect(sliding["extensions"]?["org.matrix.msc4354.sticky_events"]?["rooms"]?[den.string] != nil)
        let filters: [JSON] = [
            ["is_dm": true], ["is_dm": false], ["is_encrypted": true], ["is_encrypted": false], ["tags": ["u.x"]],
            ["not_tags": ["u.x"]], ["room_types": ["m.space", nil]], ["not_room_types": [nil]], ["is_invited": true],
            ["spaces": [.string(den.string)]],
        ]
        for filter in filters { _ = try await server.slidingSync(alice, Self.body(filter)) }
        let fresh = try await server.slidingSync(alice, Self.body())
        #expect(fresh["rooms"]?.count == 3 && fresh["lists"]?["all"]?["count"]?.integer == 3)
        let plain = try await server.sync(alice, since: since)
        let events = plain["rooms"]?["join"]?[den.string]?["timeline"]?["events"]
        #expect(events?.elements.map { $0["event_id"]?.string }.last == last.string)
        #expect(plain["rooms"]?["invite"]?.count == 1)
        await server.close()
    }
}
