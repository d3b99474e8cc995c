import Homeserver
import MatrixCore
import RoostTestSupport
import Testing

@testable import Database

@Suite("What hostile servers show to users")
struct HostileShowingTests {
    @Test("A17 an invitation with state that is none, and devices with keys that are none, break nobody's sync")
    func invitation() async throws {
        let scene = try await HostileScene()
        let alice = scene.alice
        let since = try #require(try await scene.server.sync(alice)["next_batch"]?.string)
        let nested = JSON.array([.array([.array([.null])])])
        func deep(_ levels: Int) -> JSON {
            [
                "type": "m.room.topic", "state_key": .string("\(levels)"), "sender": "@mallory:evil.example",
                "content": ["deep": (0..<levels - 2).reduce(JSON.array([])) { inner, _ in .array([inner]) }],
            ]
        }
        let states: [JSON] = [
            [], "no array", ["a": 1], .null, [deep(96), deep(97), deep(98), deep(99), deep(100), deep(101)],
            [5, "x", .null, [], ["type": 5], ["type": "m.room.name"]],
            [
                [
                    "type": "m.room.name", "state_key": "", "sender": "@mallory:evil.example",
                    "content": ["name": nested],
                ],
                ["type": "m.room.create", "state_key": "", "sender": "nobody", "content": [:]],
                ["type": "m.room.join_rules", "state_key": 5, "sender": "@mallory:evil.example", "content": [:]],
                ["type": "m.room.avatar", "state_key": "", "sender": "@mallory:evil.example", "content": "x"],
                [
                    "type": "m.room.topic", "state_key": "", "sender": "@mallory:evil.example",
                    "content": ["topic": .integer(1 << 53 - 1)], "unsigned": ["age": "old"], "more": nested,
                ],
                ["type": "m.room.encryption", "state_key": "", "sender": "@mallory:evil.example", "content": [:]],
                [
                    "type": .string(String(repeating: "t", count: 70_000)), "state_key": "",
                    "sender": "@mallory:evil.example", "content": [:],
                ],
            ],
        ]
        let hash = EventID(unchecked: "$" + String(repeating: "A", count: 43))
        for (number, state) in states.enumerated() {
            let room = RoomID(unchecked: "!invited\(number):evil.example")
            let event = try EventTemplate(
                version: .v11, roomID: room, sender: scene.mallory, type: "m.room.member",
                stateKey: alice.userID.string,
                content: [
                    "membership": "invite", "displayname": nested, "avatar_url": 5, "is_direct": "x", "reason": [],
                ],
                prevEvents: [hash], authEvents: [hash], depth: 1, originServerTS: scene.server.clock.now
            ).signed(by: scene.evil.key, as: scene.evil.name)
            let answer = try await scene.evil.ask(
                "PUT",
                "/_matrix/federation/v2/invite/\(HostileServer.quote(room.string))/\(HostileServer.quote(event.eventID.string))",
                ["room_version": "11", "event": event.root.json, "invite_room_state": state], of: scene.name)
            #expect(answer.status == 200)
        }
        // Devices of somebody in a room of hers.
        scene.answer("/user/devices/") { _ in
            [
                "user_id": .string(scene.mallory.string), "stream_id": "x", "master_key": 5, "self_signing_key": [:],
                "devices": [
                    5, ["device_id": 5], ["device_id": "A", "keys": nested],
                    [
                        "device_id": "B",
                        "keys": [
                            "user_id": .string(scene.mallory.string), "device_id": "B", "algorithms": [[], 5],
                            "keys": ["ed25519:B": [:]], "signatures": [scene.mallory.string: 5],
                        ], "device_display_name": nested,
                    ],
                ],
            ]
        }
        try await scene.evil.send(
            [],
            edus: [
                [
                    "edu_type": "m.device_list_update",
                    "content": [
                        "user_id": .string(scene.mallory.string), "device_id": nested, "stream_id": "x", "keys": 5,
                    ],
                ]
            ], id: "devices", to: scene.name)
        let query: JSON = [scene.mallory.string: []]
        _ = try await scene.server.homeserver.deviceKeys.query(
            try JSONDocument(parsing: query.encoded()).root, for: alice)
        for token in [since, nil] {
            let sync = try await scene.server.sync(alice, since: token)
            #expect(sync["rooms"]?["invite"]?.count == states.count)
            for (roomID, room) in sync["rooms"]?["invite"]?.members.map({ $0 }) ?? [] {
                let events = room["invite_state"]?["events"]?.elements.map { $0 } ?? []
                for levels in 96...101 where roomID == "!invited4:evil.example" {
                    #expect(events.contains { $0["state_key"]?.isString("\(levels)") == true } == (levels <= 100))
                }
                for event in events {
                    #expect(event["type"]?.string != nil && event["sender"]?.string.flatMap { UserID($0) } != nil)
                    #expect(event["state_key"]?.string != nil && event["content"]?.isObject == true)
                }
            }
        }
        let body: JSON = [
            "lists": ["all": ["ranges": [[0, 99]], "timeline_limit": 5, "required_state": [["*", "*"]]]],
            "extensions": ["e2ee": ["enabled": true], "to_device": ["enabled": true]],
        ]
        let sliding = try await scene.server.slidingSync(alice, body)
        #expect(sliding["rooms"]?.count == states.count + 1)
        await scene.scene.close()
    }

    @Test("A19 a space of another server with cycles, countless children and no end costs a bounded walk")
    func spaces() async throws {
        let scene = try await HostileScene()
        let space = try await scene.server.room(of: scene.alice) { $0.creationContent = ["type": "m.space"] }
        let top = RoomID(unchecked: "!0:evil.example")
        _ = try await scene.server.homeserver.sending.setState(
            StateKey("m.space.child", top.string), content: ["via": ["evil.example"]], in: space, by: scene.alice)
        @Sendable func entry(_ number: Int, _ children: [String]) -> JSON {
            [
                "room_id": .string("!\(number):evil.example"), "num_joined_members": 1, "join_rule": "public",
                "room_type": "m.space", "world_readable": true, "guest_can_join": true, "name": "space",
                "children_state": .array(
                    children.map { child in
                        [
                            "type": "m.space.child", "state_key": .string(child), "sender": "@mallory:evil.example",
                            "origin_server_ts": 1, "content": ["via": ["evil.example"]],
                        ]
                    }),
            ]
        }
        // Each space holds itself, the top, the space on this server, and a thousand that nobody has seen yet.
        scene.answer("/hierarchy/") { request in
            let digits = request.target.split(separator: "/").last?.dropFirst(3).prefix { $0.isNumber } ?? "0"
            let number = Int(digits) ?? 0
            let children = (1...1_100).map { "!\(number * 1_100 + $0):evil.example" }
            return [
                "room": entry(number, ["!\(number):evil.example", top.string, space.string, "nonsense"] + children),
                "children": .array(children.enumerated().map { entry(number * 1_100 + $0.offset + 1, [top.string]) }),
                "inaccessible_children": ["!x:evil.example", 5],
            ]
        }
        var from: String?
        var seen: [String] = []
        for _ in 0..<3 {
            let asked = scene.scene.network.exchanges.count
            let page = try await scene.server.homeserver.spaces.page(
                of: space, .init(limit: 100, maxDepth: nil, suggestedOnly: false, from: from), for: scene.alice)
            seen += page["rooms"]?.arrayValue?.compactMap { $0["room_id"]?.stringValue } ?? []
            #expect(scene.scene.network.exchanges.count - asked <= 60)
            from = page["next_batch"]?.stringValue
            if from == nil { break }
        }
        #expect(Set(seen).count == seen.count)
        #expect(seen.first == space.string && seen.contains(top.string))
        await scene.scene.close()
    }
}
