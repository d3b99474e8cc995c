import Database
import MatrixCore
import RoostTestSupport
import Testing

@testable import Homeserver

@Suite("Sliding sync", .onEachEngine)
struct SlidingSyncTests {
    static let state: JSON = [
        ["m.room.create", ""], ["m.room.name", ""], ["m.room.member", "$ME"], ["m.room.member", "$LAZY"],
    ]

    static func body(
        _ range: [JSON] = [0, 19], limit: Int64 = 5, state: JSON = Self.state, extensions: JSON = [:],
        filters: JSON = [:], subscriptions: JSON = [:], connection: String = "main"
    ) -> JSON {
        [
            "conn_id": .string(connection),
            "lists": [
                "all": [
                    "ranges": [.array(range)], "timeline_limit": .integer(limit), "required_state": state,
                    "filters": filters,
                ]
            ], "extensions": extensions, "room_subscriptions": subscriptions,
        ]
    }

    func bodies(_ answer: JSONView, _ room: RoomID) -> [String] {
        answer["rooms"]?[room.string]?["timeline"]?.elements.compactMap { $0["content"]?["body"]?.string } ?? []
    }

    func rooms(_ answer: JSONView) -> [String] { answer["rooms"]?.members.map(\.key) ?? [] }

    func pos(_ answer: JSONView) throws -> String { try #require(answer["pos"]?.string) }

    @Test("the window shows the rooms of the latest activity, and each of them once until something happens")
    func window() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        var all: [RoomID] = []
        for _ in 0..<6 { all.append(try await server.room(of: alice)) }
        try await server.say("up", in: all[1], by: alice)
        var answer = try await server.slidingSync(alice, Self.body([0, 1]))
        #expect(answer["lists"]?["all"]?["count"]?.integer == 6)
        #expect(rooms(answer) == [all[1].string, all[5].string])
        #expect(answer["rooms"]?[all[1].string]?["initial"]?.bool == true)
        answer = try await server.slidingSync(alice, Self.body([0, 3]), pos: try pos(answer))
        #expect(rooms(answer) == [all[4].string, all[3].string])
        let here = try pos(answer)
        answer = try await server.slidingSync(alice, Self.body([0, 3]), pos: here)
        #expect(rooms(answer).isEmpty)
        // What comes to the top pushes another out, and only what is new of it is told.
        try await server.say("again", in: all[3], by: alice)
        try await server.say("first", in: all[0], by: alice)
        answer = try await server.slidingSync(alice, Self.body([0, 3]), pos: try pos(answer))
        #expect(rooms(answer) == [all[0].string, all[3].string])
        #expect(bodies(answer, all[3]) == ["again"])
        #expect(answer["rooms"]?[all[3].string]?["initial"] == nil)
        #expect(answer["rooms"]?[all[3].string]?["num_live"]?.integer == 1)
        #expect(answer["rooms"]?[all[0].string]?["initial"]?.bool == true)
        await server.close()
    }

    @Test("that a room was left is told also to a device which comes after the room was forgotten")
    func forgotten() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let room = try await server.room(of: alice)
        try await server.homeserver.memberships.join(room, reason: nil, by: bob)
        let since = try #require(try await server.sync(bob)["next_batch"]?.string)
        let first = try await server.slidingSync(bob, Self.body())
        try await server.homeserver.memberships.leave(room, reason: nil, by: bob)
        try await server.homeserver.memberships.forget(room, by: bob)
        let answer = try await server.sync(bob, since: since)
        #expect(answer["rooms"]?["leave"]?[room.string]?["timeline"]?["events"]?.count == 1)
        let after = try #require(answer["next_batch"]?.string)
        #expect(try await server.sync(bob, since: after)["rooms"] == nil)
        let next = try await server.slidingSync(bob, Self.body(), pos: try pos(first))
        #expect(next["rooms"]?[room.string]?["membership"]?.string == "leave")
        let last = try await server.slidingSync(bob, Self.body(), pos: try pos(next))
        #expect(rooms(last).isEmpty && last["lists"]?["all"]?["count"]?.integer == 0)
        // To a client that begins it is as if it had never been.
        #expect(try await server.sync(bob, filter: #"{"room":{"include_leave":true}}"#)["rooms"] == nil)
        #expect(rooms(try await server.slidingSync(bob, Self.body(connection: "new"))).isEmpty)
        await server.close()
    }

    @Test("a larger timeline limit shows older events, unless the client has them")
    func expansion() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        let room = try await server.room(of: alice)
        for number in 0..<10 { try await server.say("\(number)", in: room, by: alice) }
        var answer = try await server.slidingSync(alice, Self.body(limit: 1))
        #expect(bodies(answer, room) == ["9"])
        #expect(answer["rooms"]?[room.string]?["limited"]?.bool == true)
        answer = try await server.slidingSync(alice, Self.body(limit: 4), pos: try pos(answer))
        #expect(bodies(answer, room) == ["6", "7", "8", "9"])
        #expect(answer["rooms"]?[room.string]?["expanded_timeline"]?.bool == true)
        #expect(answer["rooms"]?[room.string]?["num_live"]?.integer == 0)
        try await server.say("10", in: room, by: alice)
        answer = try await server.slidingSync(alice, Self.body(limit: 5), pos: try pos(answer))
        #expect(bodies(answer, room) == ["10"])
        #expect(answer["rooms"]?[room.string]?["expanded_timeline"] == nil)
        let subscription: JSON = [room.string: ["timeline_limit": 50, "required_state": []]]
        answer = try await server.slidingSync(
            alice, Self.body(limit: 1, subscriptions: subscription), pos: try pos(answer))
        #expect(bodies(answer, room).count == 11)
        answer = try await server.slidingSync(
            alice, Self.body(limit: 100, subscriptions: subscription), pos: try pos(answer))
        #expect(rooms(answer).isEmpty)
        await server.close()
    }

    @Test("required state: what is asked for, its changes, and what is asked for later")
    func requiredState() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let room = try await server.room(of: alice) { $0.name = "Den" }
        try await server.homeserver.memberships.join(room, reason: nil, by: bob)
        func types(_ answer: JSONView) -> [String] {
            (answer["rooms"]?[room.string]?["required_state"]?.elements.compactMap {
                "\($0["type"]?.string ?? "") \($0["state_key"]?.string ?? "")"
            } ?? []).sorted()
        }
        let named: JSON = [["m.room.name", ""], ["m.room.member", "$ME"]]
        var answer = try await server.slidingSync(alice, Self.body(limit: 0, state: named))
        #expect(types(answer) == ["m.room.member \(alice.userID)", "m.room.name "])
        #expect(answer["rooms"]?[room.string]?["name"]?.string == "Den")
        #expect(answer["rooms"]?[room.string]?["joined_count"]?.integer == 2)
        #expect(answer["rooms"]?[room.string]?["heroes"] == nil)
        _ = try await server.homeserver.sending.setState(
            StateKey("m.room.name"), content: [:], in: room, by: alice)
        answer = try await server.slidingSync(alice, Self.body(limit: 0, state: named), pos: try pos(answer))
        #expect(types(answer) == ["m.room.name "])
        #expect(answer["rooms"]?[room.string]?["name"]?.isNull == true)
        #expect(
            answer["rooms"]?[room.string]?["heroes"]?.elements.compactMap { $0["user_id"]?.string }
                == [bob.userID.string])
        // All that isn't asked for by now comes at once, and nothing twice.
        let all: JSON = ["include": [[:]], "exclude": [["type": "m.room.create"]], "lazy_members": true]
        answer = try await server.slidingSync(alice, Self.body(limit: 0, state: all), pos: try pos(answer))
        #expect(types(answer).contains("m.room.power_levels "))
        #expect(!types(answer).contains { $0.hasPrefix("m.room.create") || $0.hasPrefix("m.room.member") })
        #expect(!types(answer).contains("m.room.name "))
        answer = try await server.slidingSync(alice, Self.body(limit: 0, state: all), pos: try pos(answer))
        #expect(rooms(answer).isEmpty)
        // Members come with what they say.
        try await server.say("hello", in: room, by: bob)
        answer = try await server.slidingSync(alice, Self.body(state: all), pos: try pos(answer))
        #expect(types(answer).contains("m.room.member \(bob.userID)"))
        try await server.say("hello again", in: room, by: bob)
        answer = try await server.slidingSync(alice, Self.body(state: all), pos: try pos(answer))
        #expect(types(answer).isEmpty)
        await server.close()
    }

    @Test("state that is taken away without an event is told as gone")
    func removedState() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        let roomID = try await server.room(of: alice) { $0.name = "Den" }
        var answer = try await server.slidingSync(alice, Self.body())
        // As a state resolution may have it: the room's state changes, and no event is added.
        let homeserver = server.homeserver
        let room = try #require(try await homeserver.reading.rooms.room(roomID))
        let key = try #require(
            try await homeserver.database.existingNumbers(ofStateKeys: [StateKey("m.room.name")]).values.first)
        let change = try await homeserver.database.read { reader in
            var tree = StateTree(rows: homeserver.database.stateRows, room: room.nid)
            return try await tree.change(
                [key: nil], in: room.record.state, nextRow: room.record.nextStateRow, reader)
        }
        var after = room.record
        after.state = change.state
        after.nextStateRow += Int64(change.rows.count)
        after.stateVersion += 1
        var write = Write()
        let position = write.takePosition()
        write.update(after, readAs: room.record, by: "test", at: 1, newest: .null, bump: .null)
        write.insert(change, room: room.nid)
        write.setState(change.state, of: room.nid, from: position)
        write.topics.append(.room(room.nid))
        try await homeserver.database.write(write)
        answer = try await server.slidingSync(alice, Self.body(), pos: try pos(answer))
        let told = answer["rooms"]?[roomID.string]
        #expect(told?["name"]?.isNull == true)
        let stub = try #require(told?["required_state"]?.elements.first { $0["type"]?.string == "m.room.name" })
        #expect(stub["content"] == nil)
        #expect(stub["state_key"]?.string == "")
        await server.close()
    }

    @Test("filters choose by invitation, direct chats, tags, types, encryption and spaces")
    func filters() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let plain = try await server.room(of: alice)
        let secret = try await server.room(of: alice) {
            $0.initialState = [.init(key: .encryption, content: ["algorithm": "m.megolm.v1.aes-sha2"])]
        }
        let space = try await server.room(of: alice) { $0.creationContent = ["type": "m.space"] }
        let invited = try await server.room(of: bob)
        try await server.homeserver.memberships.invite(alice.userID, to: invited, reason: nil, by: bob)
        _ = try await server.homeserver.sending.setState(
            StateKey("m.space.child", plain.string), content: ["via": ["localhost"]], in: space, by: alice)
        try await server.homeserver.accountData.set(
            "m.direct",
            to: try JSONDocument(parsing: (["@bob:localhost": [.string(secret.string)]] as JSON).encoded()).root,
            in: nil, for: alice)
        try await server.homeserver.accountData.setTag("m.favourite", to: [:], of: plain, for: alice)
        func shown(_ filters: JSON) async throws -> Set<String> {
            let answer = try await server.slidingSync(alice, Self.body(filters: filters))
            #expect(answer["lists"]?["all"]?["count"]?.integer == Int64(rooms(answer).count))
            return Set(rooms(answer))
        }
        #expect(try await shown([:]) == Set([plain, secret, space, invited].map(\.string)))
        #expect(try await shown(["is_invite": true]) == [invited.string])
        #expect(try await shown(["is_invited": false]) == Set([plain, secret, space].map(\.string)))
        #expect(try await shown(["is_dm": true]) == [secret.string])
        #expect(try await shown(["is_dm": false, "is_invite": false]) == Set([plain, space].map(\.string)))
        #expect(try await shown(["is_encrypted": true]) == [secret.string])
        #expect(try await shown(["room_types": ["m.space"]]) == [space.string])
        #expect(
            try await shown(["not_room_types": ["m.space"], "is_invite": false]) == Set([plain, secret].map(\.string)))
        #expect(try await shown(["room_types": [nil], "not_room_types": [nil]]) == [])
        #expect(try await shown(["tags": ["m.favourite"]]) == [plain.string])
        #expect(
            try await shown(["not_tags": ["m.favourite"], "is_invite": false]) == Set([secret, space].map(\.string)))
        #expect(try await shown(["spaces": [.string(space.string)]]) == [plain.string])
        let answer = try await server.slidingSync(alice, Self.body())
        #expect(answer["rooms"]?[secret.string]?["is_dm"]?.bool == true)
        #expect(answer["rooms"]?[plain.string]?["is_dm"] == nil)
        #expect(answer["rooms"]?[plain.string]?["heroes"] == nil)
        #expect(answer["rooms"]?[invited.string]?["invite_state"]?.isArray == true)
        #expect(answer["rooms"]?[invited.string]?["membership"]?.string == "invite")
        #expect(answer["rooms"]?[invited.string]?["timeline"] == nil)
        await server.close()
    }

    @Test("a waiting sync wakes for what its window shows, and for extensions")
    func waiting() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let room = try await server.room(of: alice)
        try await server.homeserver.memberships.join(room, reason: nil, by: bob)
        let extensions: JSON = [
            "typing": ["enabled": true], "receipts": ["enabled": true], "account_data": ["enabled": true],
            "to_device": ["enabled": true], "e2ee": ["enabled": true],
        ]
        let body = Self.body(extensions: extensions)
        var answer = try await server.slidingSync(alice, body)
        #expect(
            answer["extensions"]?["account_data"]?["global"]?.elements.contains { $0["type"]?.string == "m.push_rules" }
                == true)
        #expect(answer["extensions"]?["e2ee"]?["device_one_time_keys_count"]?.isObject == true)
        func next(_ act: () async throws -> Void) async throws -> JSONView {
            let here = try pos(answer)
            let waiting = Task { try await server.slidingSync(alice, body, pos: here, timeout: 30_000) }
            try await act()
            answer = try await waiting.value
            return answer
        }
        let said = try await next { try await server.say("hello", in: room, by: bob) }
        #expect(bodies(said, room) == ["hello"])
        let typed = try await next {
            try await server.homeserver.receipts.setTyping(30_000, in: room, by: bob)
        }
        #expect(
            typed["extensions"]?["typing"]?["rooms"]?[room.string]?["content"]?["user_ids"]?.elements.compactMap(
                \.string)
                == [bob.userID.string])
        let event = try #require(
            said["rooms"]?[room.string]?["timeline"]?.elements.compactMap { $0["event_id"]?.string }.last)
        let read = try await next {
            try await server.homeserver.receipts.setReceipt(
                "m.read", on: EventID(unchecked: event), thread: nil, in: room, by: bob)
        }
        #expect(read["extensions"]?["receipts"]?["rooms"]?[room.string]?["content"]?[event]?["m.read"] != nil)
        #expect(rooms(read).isEmpty)
        let tagged = try await next {
            try await server.homeserver.accountData.setTag("u.x", to: [:], of: room, for: alice)
        }
        #expect(tagged["extensions"]?["account_data"]?["rooms"]?[room.string]?.count == 1)
        let messaged = try await next {
            let messages: JSON = [alice.userID.string: ["*": ["secret": "word"]]]
            try await server.homeserver.toDevice.send(
                "m.test", try JSONDocument(parsing: messages.encoded()).root, transactionID: "1", by: bob)
        }
        let toDevice = try #require(messaged["extensions"]?["to_device"])
        #expect(toDevice["events"]?.elements.compactMap { $0["content"]?["secret"]?.string } == ["word"])
        // Not acknowledged, it comes again; acknowledged, it doesn't.
        let again = try await server.slidingSync(alice, body, pos: try pos(messaged))
        #expect(again["extensions"]?["to_device"]?["events"]?.count == 1)
        var acknowledging = extensions
        acknowledging["to_device"]?["since"] = .string(try #require(toDevice["next_batch"]?.string))
        let after = try await server.slidingSync(
            alice, Self.body(extensions: acknowledging), pos: try pos(again))
        #expect(after["extensions"]?["to_device"]?["events"]?.count == 0)
        await server.close()
    }

    @Test("A20: nothing of a room is told from after leaving, or before joining where that is hidden")
    func leaks() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob"),
            eve = try await server.user("eve")
        let room = try await server.room(of: alice) {
            $0.initialState = [.init(key: .historyVisibility, content: ["history_visibility": "joined"])]
            $0.name = "Before"
        }
        try await server.say("before", in: room, by: alice)
        let everything: JSON = [["*", "*"]]
        let subscription: JSON = [room.string: ["timeline_limit": 50, "required_state": everything]]
        let whole = Self.body(limit: 50, state: everything, subscriptions: subscription)
        // Who never was there gets nothing, not even by naming the room.
        #expect(rooms(try await server.slidingSync(eve, whole)).isEmpty)
        try await server.homeserver.memberships.join(room, reason: nil, by: bob)
        var answer = try await server.slidingSync(bob, whole)
        #expect(!bodies(answer, room).contains("before"))
        let during = try await server.say("during", in: room, by: alice)
        try await server.homeserver.memberships.remove(bob.userID, from: room, .kick, reason: nil, by: alice)
        _ = try await server.homeserver.sending.send(
            "m.room.message",
            content: [
                "msgtype": "m.text", "body": "* afterwards",
                "m.new_content": ["msgtype": "m.text", "body": "afterwards"],
                "m.relates_to": ["rel_type": "m.replace", "event_id": .string(during.string)],
            ], to: room, transactionID: "edit", by: alice)
        try await server.say("after", in: room, by: alice)
        _ = try await server.homeserver.sending.setState(
            StateKey("m.room.name"), content: ["name": "After"], in: room, by: alice)
        let kicked = try await server.slidingSync(bob, whole, pos: try pos(answer))
        #expect(bodies(kicked, room) == ["during"])
        // Nor is what was made of it since shown with it.
        #expect(!String(decoding: kicked.raw, as: UTF8.self).contains("afterwards"))
        #expect(kicked["rooms"]?[room.string]?["membership"]?.string == "leave")
        #expect(kicked["rooms"]?[room.string]?["joined_count"] == nil)
        // A new connection, and one whose answer was lost, learn no more.
        for position in [try pos(answer), nil] {
            let anew = try await server.slidingSync(bob, whole, pos: position)
            let told = try #require(anew["rooms"]?[room.string])
            #expect(!bodies(anew, room).contains { $0 == "after" || $0 == "before" })
            let text = String(decoding: told.raw, as: UTF8.self)
            #expect(!text.contains("After"))
        }
        answer = try await server.slidingSync(bob, Self.body(limit: 50, state: everything))
        for number in 0..<3 { try await server.say("later \(number)", in: room, by: alice) }
        let later = try await server.slidingSync(bob, whole, pos: try pos(answer))
        #expect(rooms(later).isEmpty)
        // A ban after that is told, and nothing with it.
        try await server.homeserver.memberships.remove(bob.userID, from: room, .ban, reason: nil, by: alice)
        let banned = try await server.slidingSync(bob, whole, pos: try pos(later))
        #expect(banned["rooms"]?[room.string]?["membership"]?.string == "ban")
        #expect(bodies(banned, room).isEmpty)
        #expect(!String(decoding: banned.raw, as: UTF8.self).contains("later"))
        #expect(!String(decoding: banned.raw, as: UTF8.self).contains("After"))
        // Joining again tells from there.
        try await server.homeserver.memberships.remove(bob.userID, from: room, .unban, reason: nil, by: alice)
        try await server.homeserver.memberships.join(room, reason: nil, by: bob)
        let joined = try await server.slidingSync(bob, whole, pos: try pos(banned))
        #expect(joined["rooms"]?[room.string]?["initial"]?.bool == true)
        #expect(Set(bodies(joined, room)).isSubset(of: ["during"]))
        await server.close()
    }

    @Test("A20: an invitation that was turned down, and a ban after leaving, show nothing of the room in any sync")
    func turnedDown() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob"),
            eve = try await server.user("eve")
        let room = try await server.room(of: alice)
        try await server.homeserver.memberships.join(room, reason: nil, by: eve)
        var since = [bob: try #require(try await server.sync(bob)["next_batch"]?.string)]
        since[eve] = try #require(try await server.sync(eve)["next_batch"]?.string)
        var positions = [bob: try pos(try await server.slidingSync(bob, Self.body(limit: 50, state: [["*", "*"]])))]
        positions[eve] = try pos(try await server.slidingSync(eve, Self.body(limit: 50, state: [["*", "*"]])))
        try await server.homeserver.memberships.invite(bob.userID, to: room, reason: nil, by: alice)
        try await server.homeserver.memberships.remove(eve.userID, from: room, .kick, reason: nil, by: alice)
        try await server.say("hidden", in: room, by: alice)
        _ = try await server.homeserver.sending.setState(
            StateKey("m.room.topic"), content: ["topic": "hidden"], in: room, by: alice)
        try await server.homeserver.memberships.leave(room, reason: nil, by: bob)
        try await server.homeserver.memberships.remove(eve.userID, from: room, .ban, reason: nil, by: alice)
        let all = #"{"room":{"include_leave":true,"timeline":{"limit":50}}}"#
        for user in [bob, eve] {
            for answer in [
                try await server.sync(user, since: since[user], filter: all), try await server.sync(user, filter: all),
                try await server.slidingSync(user, Self.body(limit: 50, state: [["*", "*"]]), pos: positions[user]),
                try await server.slidingSync(user, Self.body(limit: 50, state: [["*", "*"]])),
            ] {
                #expect(!String(decoding: answer.raw, as: UTF8.self).contains("hidden"), "\(user.userID)")
            }
            let told = try await server.sync(user, since: since[user])["rooms"]?["leave"]?[room.string]
            #expect(told?["timeline"]?["events"]?.count ?? 0 > 0, "\(user.userID)")
        }
        await server.close()
    }

    @Test("an invitation that is over doesn't look like one", arguments: [false, true])
    func endedInvitation(isRevoked: Bool) async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let room = try await server.room(of: alice) { $0.preset = .privateChat }
        try await server.homeserver.memberships.invite(bob.userID, to: room, reason: nil, by: alice)
        let first = try await server.slidingSync(bob, Self.body())
        #expect(first["rooms"]?[room.string]?["invite_state"]?.isArray == true)
        if isRevoked {
            try await server.homeserver.memberships.remove(bob.userID, from: room, .kick, reason: nil, by: alice)
        } else {
            try await server.homeserver.memberships.leave(room, reason: nil, by: bob)
        }
        let ended = try await server.slidingSync(bob, Self.body(), pos: try pos(first))["rooms"]?[room.string]
        #expect(ended?["membership"]?.string == "leave" && ended?["invite_state"] == nil)
        let own = ended?["required_state"]?.elements.map { $0 } ?? []
        #expect(own.count == 1 && own.first?["state_key"]?.string == bob.userID.string)
        #expect(own.first?["content"]?["membership"]?.string == "leave" && own.first?["event_id"]?.string != nil)
        await server.close()
    }

    @Test("invitations that a user wants none of are in no list and no subscription", arguments: [false, true])
    func unwantedInvitation(isIgnored: Bool) async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let room = try await server.room(of: alice) { $0.preset = .privateChat }
        try await server.homeserver.memberships.invite(bob.userID, to: room, reason: nil, by: alice)
        let (type, content): (String, JSON) =
            isIgnored
            ? ("m.ignored_user_list", ["ignored_users": [alice.userID.string: [:]]])
            : ("m.invite_permission_config", ["default_action": "block"])
        try await server.homeserver.accountData.set(type, to: content.view, in: nil, for: bob)
        var body = Self.body()
        body["room_subscriptions"] = [room.string: ["timeline_limit": 1, "required_state": []]]
        #expect(try await server.slidingSync(bob, body)["rooms"]?.count ?? 0 == 0)
        await server.close()
    }

    @Test("A17: an invitation or a device key that is not what clients expect breaks nobody's sync")
    func hostileInvites() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), mallory = try await server.user("mallory")
        let own = try await server.room(of: alice)
        let room = try await server.room(of: mallory) {
            $0.preset = .privateChat
            $0.initialState = [
                .init(key: StateKey("m.room.name"), content: ["name": ["not": ["a", "name"]]]),
                .init(key: StateKey("m.room.avatar"), content: ["url": 7]),
                .init(key: StateKey("m.room.topic"), content: ["topic": nil]),
                .init(key: .encryption, content: ["algorithm": [1]]),
                .init(key: StateKey("m.room.canonical_alias"), content: ["alias": [[]]]),
            ]
        }
        _ = try await server.homeserver.sending.setState(
            .member(mallory.userID),
            content: [
                "membership": "join", "displayname": ["a": 1], "avatar_url": 5,
            ],
            in: room, by: mallory)
        try await server.homeserver.memberships.invite(alice.userID, to: room, reason: nil, by: mallory)
        try await server.homeserver.memberships.invite(
            alice.userID, to: try await server.room(of: mallory), reason: nil, by: mallory)
        let body = Self.body(state: [["*", "*"]], extensions: ["e2ee": ["enabled": true]])
        var answer = try await server.slidingSync(alice, body)
        #expect(rooms(answer).count == 3)
        #expect(try await server.sync(alice)["rooms"]?["invite"]?.count == 2)
        // Joined, it is shown without name, picture or hero's names that are none.
        try await server.homeserver.memberships.join(room, reason: nil, by: alice)
        answer = try await server.slidingSync(alice, body, pos: try pos(answer))
        #expect(answer["rooms"]?[room.string]?["name"] == nil)
        #expect(answer["rooms"]?[room.string]?["heroes"]?.elements.allSatisfy { $0["displayname"] == nil } == true)
        // One whose data are damaged is left out, and all others are told.
        let nid = try #require(try await server.homeserver.reading.rooms.room(own)).nid
        var write = Write()
        write.run(
            Statement("UPDATE memberships SET event_nid = 999999999 WHERE room_nid = $1"),
            try #require(try await server.homeserver.reading.rooms.room(room)).nid.value)
        write.run(
            Statement("UPDATE memberships SET membership = 2 WHERE room_nid = $1"),
            try #require(try await server.homeserver.reading.rooms.room(room)).nid.value)
        write.topics.append(.memberships(alice.nid))
        try await server.homeserver.database.write(write)
        answer = try await server.slidingSync(alice, body)
        #expect(rooms(answer).contains(own.string))
        #expect(!rooms(answer).contains(room.string))
        #expect(nid != RoomNID(0))
        let old = try await server.sync(alice)
        #expect(old["rooms"]?["join"]?[own.string] != nil)
        await server.close()
    }

    @Test("requests beyond the bounds, and such as are none, are refused")
    func bounds() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        let list: JSON = ["range": [0, 1], "timeline_limit": 1, "required_state": [:]]
        func lists(_ count: Int) -> JSON {
            ["lists": .object(JSONObject((0..<count).map { ("l\($0)", list) }))]
        }
        _ = try await server.slidingSync(alice, lists(100))
        let wrong: [JSON] = [
            lists(101), ["lists": ["a": ["range": [3, 1]]]], ["lists": ["a": ["ranges": [[0]]]]],
            ["lists": ["a": ["timeline_limit": -1]]], ["lists": ["a": ["required_state": "all"]]],
            ["lists": ["a": ["required_state": [["one"]]]]], ["lists": ["a": 7]],
            ["room_subscriptions": ["nothing": [:]]],
            ["extensions": []], ["conn_id": 5], ["timeout": -1], ["set_presence": "asleep"],
            ["lists": ["a": ["filters": ["room_types": [5]]]]],
            ["conn_id": .string(String(repeating: "x", count: 256))],
        ]
        for body in wrong {
            let failure = await #expect(throws: MatrixError.self, "\(body)") {
                let request = try SlidingRequest(
                    try JSONDocument(parsing: body.encoded()).root, pos: nil, timeout: nil, presence: nil,
                    for: alice.userID)
                _ = try await server.homeserver.slidingSync.sync(request, for: alice)
            }
            #expect([.invalidParam, .badJSON].contains(failure?.code), "\(body)")
        }
        await server.close()
    }
}
