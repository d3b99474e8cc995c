import MatrixCore
import RoostTestSupport
import Testing

@testable import Database
@testable import Homeserver

@Suite("Sync", .onEachEngine)
struct SyncTests {
    private func bodies(_ sync: JSONView, _ room: RoomID, _ section: String = "join") -> [String] {
        sync["rooms"]?[section]?[room.string]?["timeline"]?["events"]?.elements.compactMap {
            $0["content"]?["body"]?.string
        } ?? []
    }

    private func token(_ sync: JSONView) throws -> String { try #require(sync["next_batch"]?.string) }

    @Test("each message comes once, in order, whatever the pauses")
    func once() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let room = try await server.room(of: alice)
        try await server.homeserver.memberships.join(room, reason: nil, by: bob)
        var since = try token(try await server.sync(bob))
        var shown: [String] = []
        for number in 0..<40 {
            try await server.say("\(number)", in: room, by: alice)
            if [0, 1, 2, 7, 8, 30, 39].contains(number) {
                let answer = try await server.sync(bob, since: since, filter: #"{"room":{"timeline":{"limit":50}}}"#)
                since = try token(answer)
                shown += bodies(answer, room)
            }
        }
        #expect(shown == (0..<40).map(String.init))
        let nothing = try await server.sync(bob, since: since)
        #expect(nothing["rooms"] == nil)
        await server.close()
    }

    @Test("what comes while a sync reads, and isn't there for it, leaves the timeline as it was")
    func unseen() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        let roomID = try await server.room(of: alice)
        try await server.say("seen", in: roomID, by: alice)
        let service = server.homeserver.sync
        let room = try #require(try await service.rooms.room(roomID))
        let known = try await service.memberships(of: alice.nid)
        let membership = try #require(known.list.first)
        let upTo = service.database.committedPosition
        let glance = service.context.glances.of(room.nid, asOf: service.activity.lastChanges(of: [room.nid])[room.nid])
        let shown = try await service.database.read { reader in
            // With its first question the reader sees what there is, and nothing that comes after.
            _ = try await service.database.memberships(of: alice.nid, reader)
            for number in 0..<20 { try await server.say("\(number)", in: roomID, by: alice) }
            service.database.storedEvents.outdateAll()
            return try await RoomTimeline.read(
                .init(
                    room: room, membership: membership, leftAt: nil, limit: 1, after: nil, upTo: upTo, glance: glance),
                for: alice, service.context, reader
            ).events
        }
        let bodies = try shown.map { try service.context.parse($0, room.version).content["body"]?.string }
        #expect(bodies == ["seen"])
        await server.close()
    }

    @Test("a gap is told, and can be filled from its token")
    func gap() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        let room = try await server.room(of: alice)
        let since = try token(try await server.sync(alice))
        for number in 0..<25 { try await server.say("\(number)", in: room, by: alice) }
        let answer = try await server.sync(alice, since: since, filter: #"{"room":{"timeline":{"limit":5}}}"#)
        #expect(bodies(answer, room) == (20..<25).map(String.init))
        let timeline = answer["rooms"]?["join"]?[room.string]?["timeline"]
        #expect(timeline?["limited"]?.bool == true)
        let before = try #require(timeline?["prev_batch"]?.string)
        let page = try JSONDocument(
            parsing: try await server.homeserver.reading.messages(
                in: room, .init(from: before, to: since, backwards: true, limit: 100, filter: RoomEventFilter()),
                for: alice)
        ).root
        #expect(
            page["chunk"]?.elements.compactMap { $0["content"]?["body"]?.string }
                == (0..<20).reversed().map(String.init))
        await server.close()
    }

    @Test("a waiting sync answers when something happens, and when its time is up")
    func waiting() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let room = try await server.room(of: alice)
        try await server.homeserver.memberships.join(room, reason: nil, by: bob)
        let since = try token(try await server.sync(bob))
        let waiting = Task { try await bodies(server.sync(bob, since: since, timeout: 30_000), room) }
        try await server.say("news", in: room, by: alice)
        #expect(try await waiting.value == ["news"])

        let now = try token(try await server.sync(bob))
        let idle = Task { try await server.sync(bob, since: now, timeout: 30_000)["rooms"] == nil }
        // Time passes whenever the sync has set its timer.
        let ticking = Task {
            while !Task.isCancelled {
                server.clock.advance(by: 10_000)
                await Task.yield()
            }
        }
        #expect(try await idle.value)
        ticking.cancel()
        await server.close()
    }

    @Test("an invitation shows what the room is, joining shows all of it, leaving ends it")
    func memberships() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let room = try await server.room(of: alice) {
            $0.preset = .privateChat
            $0.name = "Den"
        }
        try await server.say("early", in: room, by: alice)
        var since = try token(try await server.sync(bob))
        try await server.homeserver.memberships.invite(bob.userID, to: room, reason: nil, by: alice)
        var answer = try await server.sync(bob, since: since)
        let stripped = answer["rooms"]?["invite"]?[room.string]?["invite_state"]?["events"]
        let types = Set(stripped?.elements.compactMap { $0["type"]?.string } ?? [])
        #expect(types.isSuperset(of: ["m.room.create", "m.room.name", "m.room.join_rules", "m.room.member"]))
        for event in stripped!.elements {
            #expect(Set(event.members.map(\.key)) == ["content", "sender", "state_key", "type"])
        }
        since = try token(answer)
        #expect(try await server.sync(bob, since: since)["rooms"] == nil)

        try await server.homeserver.memberships.join(room, reason: nil, by: bob)
        answer = try await server.sync(bob, since: since, filter: #"{"room":{"timeline":{"limit":2}}}"#)
        let joined = answer["rooms"]?["join"]?[room.string]
        #expect(joined?["timeline"]?["limited"]?.bool == true)
        let state = joined?["state"]?["events"]?.elements.compactMap { $0["type"]?.string } ?? []
        #expect(Set(state).isSuperset(of: ["m.room.create", "m.room.name", "m.room.power_levels", "m.room.member"]))
        #expect(joined?["summary"]?["m.joined_member_count"]?.integer == 2)
        // It has a name, and isn't called by its members.
        #expect(joined?["summary"]?["m.heroes"] == nil)
        since = try token(answer)

        try await server.homeserver.memberships.leave(room, reason: nil, by: bob)
        try await server.say("late", in: room, by: alice)
        answer = try await server.sync(bob, since: since)
        #expect(answer["rooms"]?["join"] == nil)
        #expect(answer["rooms"]?["leave"]?[room.string]?["timeline"]?["events"]?.count == 1)
        #expect(bodies(answer, room, "leave").isEmpty)
        since = try token(answer)
        #expect(try await server.sync(bob, since: since)["rooms"] == nil)
        #expect(try await server.sync(bob)["rooms"] == nil)
        #expect(try await server.sync(bob, filter: #"{"room":{"include_leave":true}}"#)["rooms"]?["leave"]?.count == 1)
        try await server.homeserver.memberships.forget(room, by: bob)
        #expect(try await server.sync(bob, filter: #"{"room":{"include_leave":true}}"#)["rooms"] == nil)
        await server.close()
    }

    @Test("state that changed behind a gap is told once")
    func stateBehindGap() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        let room = try await server.room(of: alice)
        let since = try token(try await server.sync(alice))
        _ = try await server.homeserver.sending.setState(
            StateKey("m.room.name"), content: ["name": "one"], in: room, by: alice)
        _ = try await server.homeserver.sending.setState(
            StateKey("m.room.name"), content: ["name": "two"], in: room, by: alice)
        for number in 0..<5 { try await server.say("\(number)", in: room, by: alice) }
        let answer = try await server.sync(alice, since: since, filter: #"{"room":{"timeline":{"limit":3}}}"#)
        let state = answer["rooms"]?["join"]?[room.string]?["state"]?["events"]
        #expect(state?.elements.compactMap { $0["content"]?["name"]?.string } == ["two"])
        #expect(Array(state!.elements)[0]["unsigned"]?["prev_content"]?["name"]?.string == "one")
        let whole = try await server.sync(alice, since: since, filter: #"{"room":{"timeline":{"limit":50}}}"#)
        #expect(whole["rooms"]?["join"]?[room.string]?["state"]?["events"]?.count == 0)
        #expect(whole["rooms"]?["join"]?[room.string]?["timeline"]?["events"]?.count == 7)
        await server.close()
    }

    @Test("who comes and goes behind a gap is told also to who loads members lazily", arguments: [false, true])
    func lazyGap(wantsStateAfter: Bool) async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let carol = try await server.user("carol"), dave = try await server.user("dave")
        let room = try await server.room(of: alice)
        for user in [bob, dave] { try await server.homeserver.memberships.join(room, reason: nil, by: user) }
        let filter = #"{"room":{"timeline":{"limit":2},"state":{"lazy_load_members":true}}}"#
        func sync(_ since: String?) async throws -> JSONView {
            var request = SyncService.Request(
                since: since, timeout: 0, fullState: false,
                filter: try SyncFilter(try JSONDocument(parsing: Array(filter.utf8)).root))
            request.wantsStateAfter = wantsStateAfter
            return try JSONDocument(
                parsing: try await server.homeserver.sync.sync(request, for: alice), limits: .own
            ).root
        }
        let since = try #require(try await sync(nil)["next_batch"]?.string)
        try await server.homeserver.memberships.join(room, reason: nil, by: carol)
        try await server.homeserver.memberships.leave(room, reason: nil, by: bob)
        for number in 0..<4 { try await server.say("\(number)", in: room, by: alice) }
        let shown = try await sync(since)["rooms"]?["join"]?[room.string]
        #expect(shown?["timeline"]?["limited"]?.bool == true)
        let state = shown?[wantsStateAfter ? "state_after" : "state"]?["events"]?.elements.map { $0 } ?? []
        let members = state.filter { $0["type"]?.string == "m.room.member" }.compactMap { $0["state_key"]?.string }
        #expect(Set(members).isSuperset(of: [bob.userID.string, carol.userID.string]))
        #expect(!members.contains(dave.userID.string))
        #expect(shown?["summary"]?["m.joined_member_count"]?.integer == 3)
        await server.close()
    }

    @Test("lazy loading leaves out the members that the timeline doesn't need")
    func lazyMembers() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        let room = try await server.room(of: alice) { $0.name = "Club" }
        var others: [Requester] = []
        for number in 0..<6 {
            others.append(try await server.user("user\(number)"))
            try await server.homeserver.memberships.join(room, reason: nil, by: others[number])
        }
        try await server.say("hello", in: room, by: others[2])
        let filter = #"{"room":{"timeline":{"limit":1},"state":{"lazy_load_members":true}}}"#
        let answer = try await server.sync(alice, filter: filter)
        let members =
            answer["rooms"]?["join"]?[room.string]?["state"]?["events"]?.elements
            .filter { $0["type"]?.string == "m.room.member" }.compactMap { $0["state_key"]?.string } ?? []
        #expect(Set(members) == ["@alice:localhost", "@user2:localhost"])
        #expect(members.count == 2)

        // What the client has got isn't sent again, unless it asks for that, or hasn't got it after all.
        func senders(_ since: String?, _ more: String = "") async throws -> ([String], String) {
            let filter = #"{"room":{"timeline":{"limit":1},"state":{"lazy_load_members":true\#(more)}}}"#
            let answer = try await server.sync(alice, since: since, filter: filter)
            let events = answer["rooms"]?["join"]?[room.string]?["state"]?["events"]?.elements.map { $0 } ?? []
            return (events.compactMap { $0["state_key"]?.string }.sorted(), try token(answer))
        }
        let first = try token(answer)
        try await server.say("again", in: room, by: others[2])
        #expect(try await senders(first).0 == [])
        #expect(try await senders(first, #","include_redundant_members":true"#).0.count == 2)
        try await server.say("new", in: room, by: others[3])
        let (new, second) = try await senders(first)
        #expect(new == ["@user3:localhost"])
        #expect(try await senders(first).0 == ["@user3:localhost"])
        try await server.say("new", in: room, by: others[3])
        #expect(try await senders(second).0 == [])
        try await server.homeserver.profiles.set("displayname", to: "Three", for: others[3])
        try await server.say("newer", in: room, by: others[3])
        #expect(try await senders(second).0 == ["@user3:localhost"])
        await server.close()
    }

    @Test("a room without a name is called by its members, whose events come along when members are loaded lazily")
    func heroes() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let room = try await server.room(of: alice)
        let memberships = server.homeserver.memberships
        try await memberships.join(room, reason: nil, by: bob)
        func shown(_ user: Requester) async throws -> (heroes: [String], members: [String]) {
            let filter = #"{"room":{"timeline":{"limit":0},"state":{"lazy_load_members":true}}}"#
            let joined = try await server.sync(user, filter: filter)["rooms"]?["join"]?[room.string]
            return (
                joined?["summary"]?["m.heroes"]?.elements.compactMap(\.string) ?? [],
                joined?["state"]?["events"]?.elements.filter { $0["type"]?.string == "m.room.member" }.compactMap {
                    $0["state_key"]?.string
                }.sorted() ?? []
            )
        }
        #expect(try await shown(alice).heroes == [bob.userID.string])
        #expect(try await shown(alice).members == [alice.userID.string, bob.userID.string])
        try await memberships.leave(room, reason: nil, by: bob)
        #expect(try await shown(alice).heroes == [bob.userID.string])
        await server.close()
    }

    @Test("the state at the end of the timeline, whole fields or some, the format of servers")
    func options() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        let room = try await server.room(of: alice)
        let since = try token(try await server.sync(alice))
        _ = try await server.homeserver.sending.setState(
            StateKey("m.room.name"), content: ["name": "one"], in: room, by: alice)
        try await server.say("hello", in: room, by: alice)
        func joined(_ filter: String, stateAfter: Bool = false) async throws -> JSONView {
            var request = SyncService.Request(
                since: since, timeout: 0, fullState: false,
                filter: try SyncFilter(try JSONDocument(parsing: Array(filter.utf8)).root))
            request.wantsStateAfter = stateAfter
            let answer = try JSONDocument(parsing: try await server.homeserver.sync.sync(request, for: alice)).root
            return try #require(answer["rooms"]?["join"]?[room.string])
        }
        let after = try await joined("{}", stateAfter: true)
        #expect(after["state"] == nil)
        #expect(after["state_after"]?["events"]?.elements.compactMap { $0["content"]?["name"]?.string } == ["one"])
        #expect(after["timeline"]?["events"]?.count == 2)
        #expect(
            after["timeline"]?["events"]?.elements.compactMap { $0["unsigned"]?["membership"]?.string }
                == ["join", "join"])
        let plain = try await joined("{}")
        #expect(plain["state_after"] == nil)
        #expect(plain["state"]?["events"]?.count == 0)
        let some = try await joined(#"{"event_fields":["type","content.body","unsigned.none"]}"#)
        #expect(
            some["timeline"]?["events"]?.elements.map { $0.json } == [
                ["type": "m.room.name"], ["type": "m.room.message", "content": ["body": "hello"]],
            ])
        let raw = try await joined(#"{"event_format":"federation"}"#)
        let event = try #require(raw["timeline"]?["events"]?.elements.map { $0 }.last)
        #expect(event["auth_events"]?.isArray == true && event["signatures"]?.isObject == true)
        #expect(event["unsigned"]?["age"] == nil)
        await server.close()
    }

    @Test("filters by type, sender and room hold")
    func filters() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let room = try await server.room(of: alice), other = try await server.room(of: alice)
        try await server.homeserver.memberships.join(room, reason: nil, by: bob)
        for user in [alice, bob] { try await server.say("from \(user.userID.localpart)", in: room, by: user) }
        func timeline(_ filter: String) async throws -> [String] {
            bodies(try await server.sync(alice, filter: #"{"room":{"timeline":\#(filter)}}"#), room)
        }
        #expect(try await timeline(#"{"types":["m.room.mess*"]}"#) == ["from alice", "from bob"])
        #expect(try await timeline(#"{"not_types":["*message"]}"#) == [])
        #expect(try await timeline(#"{"senders":["@bob:localhost"]}"#) == ["from bob"])
        #expect(try await timeline(#"{"not_senders":["@bob:localhost"]}"#) == ["from alice"])
        #expect(try await timeline(#"{"contains_url":true}"#) == [])
        let rooms = try await server.sync(alice, filter: #"{"room":{"not_rooms":["\#(room)"]}}"#)["rooms"]?["join"]
        #expect(rooms?.members.map(\.key) == [other.string])
        await #expect(throws: MatrixError.self) {
            try await server.sync(alice, filter: #"{"room":{"timeline":{"limit":"x"}}}"#)
        }
        await server.close()
    }

    @Test("receipts and typing arrive; private receipts only at their owner's")
    func ephemeral() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let room = try await server.room(of: alice)
        try await server.homeserver.memberships.join(room, reason: nil, by: bob)
        let event = try await server.say("read me", in: room, by: alice)
        var since = ["alice": try token(try await server.sync(alice)), "bob": try token(try await server.sync(bob))]
        func ephemeral(_ user: Requester) async throws -> [JSON] {
            let name = user.userID.localpart
            let answer = try await server.sync(user, since: since[name])
            since[name] = try token(answer)
            return answer["rooms"]?["join"]?[room.string]?["ephemeral"]?["events"]?.elements.map(\.json) ?? []
        }
        let receipts = server.homeserver.receipts
        try await receipts.setReceipt("m.read", on: event, thread: nil, in: room, by: bob)
        let shown = try await ephemeral(alice)
        #expect(shown.count == 1)
        #expect(shown[0]["content"]?[event.string]?["m.read"]?["@bob:localhost"]?["ts"] == .integer(server.clock.now))
        #expect(try await ephemeral(alice) == [])
        _ = try await ephemeral(bob)
        try await receipts.setReceipt("m.read.private", on: event, thread: "main", in: room, by: bob)
        #expect(try await ephemeral(alice) == [])
        #expect(try await ephemeral(bob).count == 1)

        try await receipts.setTyping(20_000, in: room, by: bob)
        #expect(try await ephemeral(alice)[0]["content"] == ["user_ids": ["@bob:localhost"]])
        #expect(try await ephemeral(alice) == [])
        try await receipts.setTyping(nil, in: room, by: bob)
        #expect(try await ephemeral(alice)[0]["content"] == ["user_ids": []])
        // Who says no more is not typing any more.
        try await receipts.setTyping(20_000, in: room, by: bob)
        _ = try await ephemeral(alice)
        server.clock.advance(by: 20_001)
        #expect(try await ephemeral(alice).first?["content"] == ["user_ids": []])
        await server.close()
    }

    @Test("tokens hold across a restart; tokens of another database begin anew; other text is refused")
    func tokens() async throws {
        let directory = TemporaryDirectory()
        var server = try await TestServer(directory: directory)
        let alice = try await server.user("alice")
        let room = try await server.room(of: alice)
        let since = try token(try await server.sync(alice))
        try await server.say("before the restart", in: room, by: alice)
        await server.close()
        server = try await TestServer(directory: directory, clock: ManualSurroundings(seed: 2))
        try await server.say("after the restart", in: room, by: alice)
        let answer = try await server.sync(alice, since: since)
        #expect(bodies(answer, room) == ["before the restart", "after the restart"])
        let foreign = "s1-00000000-999999-00000000-0"
        #expect(bodies(try await server.sync(alice, since: foreign), room).count == 2)
        await #expect(throws: MatrixError.self) { try await server.sync(alice, since: "nonsense") }
        await server.close()
    }

    @Test("account data of rooms arrive with their rooms")
    func roomAccountData() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        let room = try await server.room(of: alice)
        let event = try await server.say("read me", in: room, by: alice)
        let since = try token(try await server.sync(alice))
        try await server.homeserver.receipts.setReadMarkers(
            fullyRead: event, read: nil, readPrivate: nil, in: room, by: alice)
        let answer = try await server.sync(alice, since: since)
        let data = answer["rooms"]?["join"]?[room.string]?["account_data"]?["events"]?.elements.map(\.json)
        #expect(data == [["type": "m.fully_read", "content": ["event_id": .string(event.string)]]])
        #expect(try await server.sync(alice, since: try token(answer))["rooms"] == nil)
        await server.close()
    }
}
