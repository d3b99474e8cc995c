import Database
import MatrixCore
import RoostTestSupport
import Testing

@testable import Homeserver

@Suite("Unread counts", .onEachEngine)
struct UnreadCountTests {
    /// What a sync tells of a room.
    private struct Unread: Equatable {
        var notifications: Int64
        var highlights: Int64
        var threads: [String: Int64] = [:]

        init(_ notifications: Int64, _ highlights: Int64 = 0, threads: [String: Int64] = [:]) {
            self.notifications = notifications
            self.highlights = highlights
            self.threads = threads
        }
    }

    private func unread(
        _ server: TestServer, _ user: Requester, _ room: RoomID, threads: Bool = false, since: String? = nil
    ) async throws -> Unread? {
        let filter = #"{"room":{"timeline":{"limit":1,"unread_thread_notifications":\#(threads)}}}"#
        let sync = try await server.sync(user, since: since, filter: filter)
        guard let found = sync["rooms"]?["join"]?[room.string], let counts = found["unread_notifications"] else {
            return nil
        }
        var unread = Unread(
            counts["notification_count"]?.integer ?? -1, counts["highlight_count"]?.integer ?? -1)
        if let threads = found["unread_thread_notifications"] {
            for (root, count) in threads.members { unread.threads[root] = count["notification_count"]?.integer }
        }
        return unread
    }

    private struct Scene {
        let server: TestServer
        let alice: Requester
        let bob: Requester
        let room: RoomID
    }

    private func scene() async throws -> Scene {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let room = try await server.room(of: alice)
        try await server.say("before", in: room, by: alice)
        try await server.homeserver.memberships.join(room, reason: nil, by: bob)
        return Scene(server: server, alice: alice, bob: bob, room: room)
    }

    private func send(
        _ content: JSON, _ scene: Scene, type: String = "m.room.message", by user: Requester? = nil
    ) async throws -> EventID {
        try await scene.server.homeserver.sending.send(
            type, content: content, to: scene.room,
            transactionID: scene.server.clock.surroundings.randomBytes(8).map(String.init).joined(separator: "."),
            by: user ?? scene.alice)
    }

    private func setRule(
        _ json: JSON, _ kind: PushRule.Kind, _ scene: Scene, for user: Requester? = nil
    ) async throws {
        try await scene.server.homeserver.pushRules.put(
            try #require(PushRule(json, kind: kind)), kind: kind, before: nil, after: nil, of: user ?? scene.bob)
    }

    @Test("messages count from joining to the receipt, and one's own message marks what was before as read")
    func receipts() async throws {
        let scene = try await scene()
        let server = scene.server, bob = scene.bob, room = scene.room
        #expect(try await unread(server, bob, room) == Unread(0))
        let first = try await server.say("1", in: room, by: scene.alice)
        for text in ["2", "3"] { try await server.say(text, in: room, by: scene.alice) }
        #expect(try await unread(server, bob, room) == Unread(3))
        #expect(try await unread(server, scene.alice, room) == Unread(0))
        try await server.homeserver.receipts.setReceipt("m.read", on: first, thread: nil, in: room, by: bob)
        #expect(try await unread(server, bob, room) == Unread(2))
        try await server.say("4", in: room, by: bob)
        #expect(try await unread(server, bob, room) == Unread(0))
        #expect(try await unread(server, scene.alice, room) == Unread(1))
        let last = try await server.say("5", in: room, by: scene.alice)
        #expect(try await unread(server, bob, room) == Unread(1))
        // The public receipt lags behind the private one: the one further on counts.
        try await server.homeserver.receipts.setReceipt("m.read.private", on: last, thread: nil, in: room, by: bob)
        try await server.homeserver.receipts.setReceipt("m.read", on: first, thread: nil, in: room, by: bob)
        #expect(try await unread(server, bob, room) == Unread(0))
        await server.close()
    }

    @Test(
        "a receipt sent by one device takes the count away in the other's next sync, also where receipts are filtered out"
    )
    func otherDevice() async throws {
        let scene = try await scene()
        let event = try await scene.server.say("1", in: scene.room, by: scene.alice)
        let filter = #"{"room":{"ephemeral":{"types":[]}}}"#
        let first = try await scene.server.sync(scene.bob, filter: filter)
        let since = try #require(first["next_batch"]?.string)
        try await scene.server.homeserver.receipts.setReceipt(
            "m.read.private", on: event, thread: nil, in: scene.room, by: scene.bob)
        let next = try await scene.server.sync(scene.bob, since: since, filter: filter)
        let counts = next["rooms"]?["join"]?[scene.room.string]?["unread_notifications"]
        #expect(counts?["notification_count"]?.integer == 0)
        await scene.server.close()
    }

    @Test(
        "what doesn't notify doesn't count",
        arguments: [
            ("m.room.message", #"{"msgtype":"m.notice","body":"notice"}"#, Int64(0), Int64(0)),
            ("m.reaction", #"{"m.relates_to":{"rel_type":"m.annotation","event_id":"$x","key":"👍"}}"#, 0, 0),
            (
                "m.room.message",
                #"{"msgtype":"m.text","body":"edit","m.relates_to":{"rel_type":"m.replace","event_id":"$x"}}"#, 0, 0
            ),
            ("org.example.thing", #"{"body":"thing"}"#, 0, 0),
            ("m.room.encrypted", #"{"algorithm":"m.megolm.v1.aes-sha2"}"#, 1, 0),
            ("m.room.message", #"{"msgtype":"m.text","body":"hi","m.mentions":{"room":true}}"#, 1, 1),
            ("m.room.message", #"{"msgtype":"m.text","body":"hi","m.mentions":{"user_ids":["@bob:localhost"]}}"#, 1, 1),
            (
                "m.room.message", #"{"msgtype":"m.text","body":"hi","m.mentions":{"user_ids":["@carol:localhost"]}}"#,
                1, 0
            ),
            (
                "m.room.message", #"{"msgtype":"m.notice","body":"hi","m.mentions":{"user_ids":["@bob:localhost"]}}"#,
                0, 0
            ),
        ])
    func defaults(type: String, content: String, notifications: Int64, highlights: Int64) async throws {
        let scene = try await scene()
        let name = scene.bob.userID.server.description
        let text = content.split(separator: "localhost", omittingEmptySubsequences: false).joined(separator: name)
        _ = try await send(try JSONDocument(parsing: Array(text.utf8)).root.json, scene, type: type)
        #expect(try await unread(scene.server, scene.bob, scene.room) == Unread(notifications, highlights))
        await scene.server.close()
    }

    @Test("threads are counted apart for who asks, and read apart")
    func threads() async throws {
        let scene = try await scene()
        let server = scene.server, bob = scene.bob, room = scene.room
        let root = try await server.say("root", in: room, by: scene.alice)
        func reply(_ text: String) async throws -> EventID {
            try await send(
                [
                    "msgtype": "m.text", "body": .string(text),
                    "m.relates_to": ["rel_type": "m.thread", "event_id": .string(root.string)],
                ], scene)
        }
        _ = try await reply("1")
        let second = try await reply("2")
        let main = try await server.say("main", in: room, by: scene.alice)
        #expect(try await unread(server, bob, room) == Unread(4))
        #expect(try await unread(server, bob, room, threads: true) == Unread(2, threads: [root.string: 2]))
        try await server.homeserver.receipts.setReceipt("m.read", on: second, thread: root.string, in: room, by: bob)
        #expect(try await unread(server, bob, room, threads: true) == Unread(2))
        let third = try await reply("3")
        #expect(try await unread(server, bob, room, threads: true) == Unread(2, threads: [root.string: 1]))
        try await server.homeserver.receipts.setReceipt("m.read", on: main, thread: "main", in: room, by: bob)
        #expect(try await unread(server, bob, room, threads: true) == Unread(0, threads: [root.string: 1]))
        try await server.homeserver.receipts.setReceipt("m.read", on: third, thread: nil, in: room, by: bob)
        #expect(try await unread(server, bob, room, threads: true) == Unread(0))
        await server.close()
    }

    @Test("a muted room counts mentions only; a keyword highlights; turning the rule off brings the count back")
    func ownRules() async throws {
        let scene = try await scene()
        let server = scene.server, bob = scene.bob, room = scene.room
        try await setRule(["rule_id": .string(room.string), "actions": []], .room, scene)
        try await server.say("quiet", in: room, by: scene.alice)
        let mention: JSON = [
            "msgtype": "m.text", "body": "hi", "m.mentions": ["user_ids": [.string(bob.userID.string)]],
        ]
        _ = try await send(mention, scene)
        #expect(try await unread(server, bob, room) == Unread(1, 1))
        let other = try await server.room(of: scene.alice)
        try await server.homeserver.memberships.join(other, reason: nil, by: bob)
        try await server.say("loud", in: other, by: scene.alice)
        #expect(try await unread(server, bob, other) == Unread(1))
        try await setRule(
            ["rule_id": "cake", "pattern": "cake", "actions": ["notify", ["set_tweak": "highlight"]]], .content, scene)
        try await server.say("there is cake", in: other, by: scene.alice)
        #expect(try await unread(server, bob, other) == Unread(2, 1))
        for rule in [".m.rule.message", ".m.rule.room_one_to_one"] {
            try await server.homeserver.pushRules.update(rule, kind: .underride, of: bob) { $0.actions = .none }
        }
        try await server.say("not for bob", in: other, by: scene.alice)
        #expect(try await unread(server, bob, other) == Unread(2, 1))
        await server.close()
    }

    @Test("a redacted message isn't unread any more")
    func redaction() async throws {
        let scene = try await scene()
        let server = scene.server, bob = scene.bob, room = scene.room
        let first = try await server.say("1", in: room, by: scene.alice)
        try await server.say("2", in: room, by: scene.alice)
        let mention = try await send(
            [
                "msgtype": "m.text", "body": "hi",
                "m.mentions": ["user_ids": [.string(bob.userID.string)]],
            ], scene)
        #expect(try await unread(server, bob, room) == Unread(3, 1))
        for event in [first, mention] {
            _ = try await server.homeserver.sending.send(
                "m.room.redaction", content: ["redacts": .string(event.string)], to: room, transactionID: event.string,
                redacts: event, by: scene.alice)
        }
        #expect(try await unread(server, bob, room) == Unread(1))
        await server.close()
    }

    @Test("counting starts anew after leaving, and a change of name is no joining")
    func leaving() async throws {
        let scene = try await scene()
        let server = scene.server, bob = scene.bob, room = scene.room
        try await server.say("1", in: room, by: scene.alice)
        try await server.homeserver.profiles.set("displayname", to: "Bobby", for: bob)
        #expect(try await unread(server, bob, room) == Unread(1))
        try await server.homeserver.memberships.leave(room, reason: nil, by: bob)
        try await server.say("2", in: room, by: scene.alice)
        try await server.homeserver.memberships.join(room, reason: nil, by: bob)
        #expect(try await unread(server, bob, room) == Unread(0))
        try await server.say("3", in: room, by: scene.alice)
        #expect(try await unread(server, bob, room) == Unread(1))
        await server.close()
    }

    @Test("random messages, receipts and rules give what a naive count gives", arguments: 0..<6)
    func model(seed: UInt64) async throws {
        var generator = SeededGenerator(seed: seed)
        let scene = try await scene()
        let server = scene.server, room = scene.room
        struct Message {
            var event: EventID
            var sender: Int
            var thread: String?
            var mentions: Int?
        }
        let users = [scene.alice, scene.bob]
        var messages: [Message] = []
        var receipts: [[(place: Int, thread: String?)]] = [[], []]
        for step in 0..<60 {
            switch Int.random(in: 0..<10, using: &generator) {
            case 0..<6:
                let sender = Int.random(in: 0..<2, using: &generator)
                let root = messages.filter { $0.thread == nil }.randomElement(using: &generator)
                let thread = Bool.random(using: &generator) ? root?.event.string : nil
                let mentions = Int.random(in: 0..<4, using: &generator) == 0 ? 1 - sender : nil
                var content: JSON = ["msgtype": "m.text", "body": .string("\(step)")]
                if let thread { content["m.relates_to"] = ["rel_type": "m.thread", "event_id": .string(thread)] }
                if let mentions {
                    content["m.mentions"] = ["user_ids": [.string(users[mentions].userID.string)]]
                }
                let event = try await send(content, scene, by: users[sender])
                messages.append(Message(event: event, sender: sender, thread: thread, mentions: mentions))
            case 6..<9:
                guard let place = messages.indices.randomElement(using: &generator) else { continue }
                let user = Int.random(in: 0..<2, using: &generator)
                let thread = [nil, messages[place].thread ?? "main"].randomElement(using: &generator)!
                let type = Bool.random(using: &generator) ? "m.read" : "m.read.private"
                try await server.homeserver.receipts.setReceipt(
                    type, on: messages[place].event, thread: thread, in: room, by: users[user])
                // Of one type and thread, the furthest counts: none goes back.
                let kind = (thread ?? "") + type
                let furthest = receipts[user].first { $0.thread == kind }.map { max($0.place, place) } ?? place
                receipts[user].removeAll { $0.thread == kind }
                receipts[user].append((furthest, kind))
            default: break
            }
            for user in 0..<2 {
                func read(_ thread: String) -> Int {
                    receipts[user].filter { $0.thread == thread + "m.read" || $0.thread == thread + "m.read.private" }
                        .map(\.place).max() ?? -1
                }
                var expected: [String: (Int64, Int64)] = [:]
                for (place, message) in messages.enumerated() where message.sender != user {
                    let thread = message.thread ?? "main"
                    let own = messages.lastIndex { $0.sender == user && ($0.thread ?? "main") == thread } ?? -1
                    if place <= max(own, read(""), read(thread)) { continue }
                    let before = expected[thread] ?? (0, 0)
                    expected[thread] = (before.0 + 1, before.1 + (message.mentions == user ? 1 : 0))
                }
                let main = expected.removeValue(forKey: "main") ?? (0, 0)
                #expect(
                    try await unread(server, users[user], room, threads: true)
                        == Unread(main.0, main.1, threads: expected.mapValues(\.0)),
                    "seed \(seed), step \(step), user \(user)")
            }
        }
        await server.close()
    }
}
