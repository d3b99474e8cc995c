import Database
import MatrixCore
import RoostTestSupport
import Testing

@testable import Homeserver

/// Threads that notify those who follow them (MSC4306, "New Push Rules").
@Suite("Followed threads", .onEachEngine)
struct FollowedThreadTests {
    private struct Scene {
        let server: TestServer
        let alice: Requester
        let bob: Requester
        let carol: Requester
        let room: RoomID
        let root: EventID

        var service: ThreadSubscriptionService { server.homeserver.threadSubscriptions }

        init(_ server: TestServer) async throws {
            self.server = server
            alice = try await server.user("alice")
            bob = try await server.user("bob")
            carol = try await server.user("carol")
            room = try await server.room(of: alice)
            for user in [bob, carol] { try await server.homeserver.memberships.join(room, reason: nil, by: user) }
            root = try await server.say("root", in: room, by: alice)
            for user in [bob, carol] { try await read(root, by: user) }
        }

        func read(_ event: EventID, thread: String? = nil, by user: Requester) async throws {
            try await server.homeserver.receipts.setReceipt("m.read", on: event, thread: thread, in: room, by: user)
        }

        @discardableResult
        func reply(
            _ text: String = "reply", mentioning user: Requester? = nil, type: String = "m.room.message",
            relation: JSON? = nil, by sender: Requester? = nil
        ) async throws -> EventID {
            var content: JSON = [
                "msgtype": "m.text", "body": .string(text),
                "m.relates_to": relation ?? ["rel_type": "m.thread", "event_id": .string(root.string)],
            ]
            if let user { content["m.mentions"] = ["user_ids": [.string(user.userID.string)]] }
            return try await server.homeserver.sending.send(
                type, content: content, to: room,
                transactionID: server.clock.surroundings.randomBytes(8).map(String.init).joined(separator: "."),
                by: sender ?? alice)
        }

        /// What a sync counts in the main timeline, and in the thread.
        func unread(_ user: Requester) async throws -> [Int64] {
            let filter = #"{"room":{"timeline":{"limit":1,"unread_thread_notifications":true}}}"#
            let found = try await server.sync(user, filter: filter)["rooms"]?["join"]?[room.string]
            let thread = found?["unread_thread_notifications"]?[root.string]?["notification_count"]?.integer ?? 0
            return [found?["unread_notifications"]?["notification_count"]?.integer ?? -1, thread]
        }

        func rule(_ json: JSON, _ kind: PushRule.Kind, of user: Requester) async throws {
            try await server.homeserver.pushRules.put(
                try #require(PushRule(json, kind: kind)), kind: kind, before: nil, after: nil, of: user)
        }
    }

    private func scene(
        in directory: TemporaryDirectory = TemporaryDirectory(), follow: Bool = true
    ) async throws -> Scene {
        try await Scene(try await TestServer(directory: directory) { $0.threads.notifyFollowersOnly = follow })
    }

    @Test("a message in a thread notifies those who follow it and those whom it mentions, and nobody else")
    func followers() async throws {
        let scene = try await scene()
        try await scene.reply()
        #expect(try await scene.unread(scene.bob) == [0, 0])
        try await scene.service.subscribe(to: scene.root, in: scene.room, because: nil, by: scene.bob)
        let second = try await scene.reply()
        #expect(try await scene.unread(scene.bob) == [0, 1])
        #expect(try await scene.unread(scene.carol) == [0, 0])
        let mention = try await scene.reply(mentioning: scene.carol)
        #expect(try await scene.unread(scene.bob) == [0, 2])
        #expect(try await scene.unread(scene.carol) == [0, 1])
        try await scene.service.subscribe(to: scene.root, in: scene.room, because: mention, by: scene.carol)
        try await scene.reply()
        #expect(try await scene.unread(scene.carol) == [0, 2])
        try await scene.service.unsubscribe(from: scene.root, in: scene.room, by: scene.bob)
        try await scene.reply()
        #expect(try await scene.unread(scene.bob) == [0, 3])
        #expect(try await scene.unread(scene.carol) == [0, 3])
        // Messages outside of threads are what they were.
        try await scene.server.say("main", in: scene.room, by: scene.alice)
        #expect(try await scene.unread(scene.bob) == [1, 3])
        try await scene.read(second, thread: scene.root.string, by: scene.bob)
        #expect(try await scene.unread(scene.bob) == [1, 2])
        await scene.server.close()
    }

    @Test("a followed thread notifies in a muted room, too; what overrides the rules does so here")
    func muted() async throws {
        let scene = try await scene()
        for user in [scene.bob, scene.carol] {
            try await scene.service.subscribe(to: scene.root, in: scene.room, because: nil, by: user)
        }
        try await scene.rule(["rule_id": .string(scene.room.string), "actions": []], .room, of: scene.bob)
        let condition: JSON = ["kind": "event_match", "key": "room_id", "pattern": .string(scene.room.string)]
        try await scene.rule(["rule_id": "mute", "conditions": [condition], "actions": []], .override, of: scene.carol)
        try await scene.reply()
        try await scene.server.say("main", in: scene.room, by: scene.alice)
        #expect(try await scene.unread(scene.bob) == [0, 1])
        #expect(try await scene.unread(scene.carol) == [0, 0])
        await scene.server.close()
    }

    @Test("a rule for all of a room's messages doesn't bring threads that aren't followed; a keyword does")
    func ownRules() async throws {
        let scene = try await scene()
        try await scene.rule(["rule_id": .string(scene.room.string), "actions": ["notify"]], .room, of: scene.bob)
        try await scene.rule(["rule_id": "cake", "pattern": "cake", "actions": ["notify"]], .content, of: scene.bob)
        try await scene.reply("bread")
        #expect(try await scene.unread(scene.bob) == [0, 0])
        try await scene.reply("cake")
        #expect(try await scene.unread(scene.bob) == [0, 1])
        // Switched off, the rule keeps nothing back.
        try await scene.server.homeserver.pushRules.update(
            PushRuleSet.threads[0].id, kind: .postcontent, of: scene.bob
        ) { $0.isEnabled = false }
        try await scene.reply("bread")
        #expect(try await scene.unread(scene.bob) == [0, 2])
        await scene.server.close()
    }

    @Test("who writes in a thread has read what was before, there and not elsewhere")
    func own() async throws {
        let scene = try await scene()
        try await scene.service.subscribe(to: scene.root, in: scene.room, because: nil, by: scene.bob)
        try await scene.reply()
        try await scene.server.say("main", in: scene.room, by: scene.alice)
        #expect(try await scene.unread(scene.bob) == [1, 1])
        try await scene.reply("mine", by: scene.bob)
        #expect(try await scene.unread(scene.bob) == [1, 0])
        try await scene.reply()
        #expect(try await scene.unread(scene.bob) == [1, 1])
        let page = try await scene.server.homeserver.notificationList.page(
            from: nil, limit: nil, onlyHighlights: false, for: scene.bob)
        let listed = page["notifications"]?.arrayValue ?? []
        #expect(listed.map { $0["read"]?.boolValue } == [false, false, true, true])
        #expect(listed.first?["actions"] == ["notify", ["set_tweak": "sound", "value": "default"]])
        #expect(listed.dropFirst().first?["actions"] == ["notify"])
        await scene.server.close()
    }

    @Test(
        "what relates to an event of a thread is of the thread, and what relates to others isn't",
        arguments: [("m.reference", true, 0), ("m.reference", false, 1)] as [(String, Bool, Int64)])
    func relations(type: String, inThread: Bool, count: Int64) async throws {
        let scene = try await scene()
        let parent = inThread ? try await scene.reply() : scene.root
        try await scene.reply(relation: ["rel_type": .string(type), "event_id": .string(parent.string)])
        #expect(try await scene.unread(scene.bob) == [count, 0])
        await scene.server.close()
    }

    @Test("a thread whose root is of another room, or of none, is followed by nobody")
    func foreignRoots() async throws {
        let scene = try await scene()
        let other = try await scene.server.room(of: scene.alice)
        let elsewhere = try await scene.server.say("elsewhere", in: other, by: scene.alice)
        for root in [elsewhere.string, "$nowhere"] {
            try await scene.reply(relation: ["rel_type": "m.thread", "event_id": .string(root)])
        }
        #expect(try await scene.unread(scene.bob) == [0, 0])
        await scene.server.close()
    }

    @Test("who has left the room is not notified by its threads")
    func leaving() async throws {
        let scene = try await scene()
        try await scene.service.subscribe(to: scene.root, in: scene.room, because: nil, by: scene.bob)
        try await scene.server.homeserver.memberships.leave(scene.room, reason: nil, by: scene.bob)
        try await scene.reply()
        try await scene.server.homeserver.memberships.join(scene.room, reason: nil, by: scene.bob)
        #expect(try await scene.unread(scene.bob) == [0, 0])
        try await scene.reply()
        #expect(try await scene.unread(scene.bob) == [0, 1])
        await scene.server.close()
    }

    @Test("switched off, threads notify everybody, and what a user has set of their rules is kept for later")
    func switching() async throws {
        let directory = TemporaryDirectory()
        let first = try await scene(in: directory)
        let rule = PushRuleSet.threads[1].id
        try await first.server.homeserver.pushRules.update(rule, kind: .postcontent, of: first.bob) {
            $0.isEnabled = false
        }
        func shown(_ server: TestServer) async throws -> JSONView? {
            let events = try await server.sync(first.bob)["account_data"]?["events"]?.elements
            return events?.first { $0["type"]?.isString("m.push_rules") == true }?["content"]?["global"]
        }
        #expect(try await shown(first.server)?["postcontent"]?.count == 2)
        await first.server.close()

        let plain = try await TestServer(directory: directory, clock: first.server.clock)
        #expect(try await shown(plain)?["postcontent"] == nil)
        #expect(try await plain.homeserver.pushRules.rules(of: first.bob)[.postcontent].isEmpty)
        // A change of another rule doesn't lose it.
        try await plain.homeserver.pushRules.update(".m.rule.call", kind: .underride, of: first.bob) {
            $0.isEnabled = false
        }
        await plain.close()

        let again = try await TestServer(directory: directory, clock: first.server.clock) {
            $0.threads.notifyFollowersOnly = true
        }
        let told = try await shown(again)?["postcontent"]?.elements.map { $0["enabled"]?.bool }
        #expect(told == [true, false])
        let rules = try await again.homeserver.pushRules.rules(of: first.bob)
        #expect(rules.rule(".m.rule.call", kind: .underride)?.isEnabled == false)
        #expect(rules.rule(rule, kind: .postcontent)?.isEnabled == false)
        // Somebody who changed rules before there were those about threads has them all the same.
        let known = try await again.homeserver.accountData.get("m.push_rules", in: nil, for: first.bob)
        #expect(try JSONDocument(parsing: known).root["global"]?["postcontent"]?.count == 2)
        await again.close()
    }

    @Test("without the setting a thread notifies as ever, whoever follows it")
    func off() async throws {
        let scene = try await scene(follow: false)
        try await scene.service.subscribe(to: scene.root, in: scene.room, because: nil, by: scene.bob)
        try await scene.reply()
        for user in [scene.bob, scene.carol] { #expect(try await scene.unread(user) == [0, 1]) }
        await scene.server.close()
    }

    @Test("a purged room leaves no subscription")
    func purging() async throws {
        let scene = try await scene()
        try await scene.service.subscribe(to: scene.root, in: scene.room, because: nil, by: scene.bob)
        try await scene.server.homeserver.purging.purge(scene.room)
        let page = try await scene.service.page(from: nil, to: nil, limit: 10, for: scene.bob)
        #expect(page["subscribed"]?.objectValue?.isEmpty == true)
        await scene.server.close()
    }
}
