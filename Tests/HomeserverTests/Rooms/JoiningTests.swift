import MatrixCore
import RoostTestSupport
import Testing

@testable import Homeserver

@Suite("Ways into a room", .onEachEngine)
struct JoiningTests {
    private func restricted(_ rule: String, to room: RoomID) -> [RoomCreationService.InitialState] {
        [
            .init(
                key: .joinRules,
                content: [
                    "join_rule": .string(rule),
                    "allow": [
                        ["type": "m.room_membership", "room_id": .string(room.string)],
                        ["type": "other", "room_id": 7],
                    ],
                ])
        ]
    }

    @Test("a restricted room lets in the members of the rooms it names, and nobody else", arguments: ["8", "10", "12"])
    func restrictedJoins(version: String) async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob"),
            carol = try await server.user("carol")
        let memberships = server.homeserver.memberships
        let club = try await server.room(of: alice)
        let rule = version == "8" ? "restricted" : "knock_restricted"
        let room = try await server.room(of: alice, version: version) {
            $0.preset = .privateChat
            $0.initialState = restricted(rule, to: club)
        }
        try await memberships.join(club, reason: nil, by: bob)
        try await memberships.join(room, reason: nil, by: bob)
        let member = try await server.homeserver.reading.state(
            of: room, key: .member(bob.userID), wholeEvent: false, for: alice)
        #expect(contains(member, #""join_authorised_via_users_server":"@alice:localhost""#))
        let refused = await #expect(throws: MatrixError.self) {
            try await memberships.join(room, reason: nil, by: carol)
        }
        #expect(refused?.code == .forbidden)
        // An invitation needs nobody's right.
        try await memberships.invite(carol.userID, to: room, reason: nil, by: alice)
        try await memberships.join(room, reason: nil, by: carol)
        // Who is banned stays out, member of the club or not.
        try await memberships.remove(bob.userID, from: room, .ban, reason: nil, by: alice)
        await #expect(throws: MatrixError.self) { try await memberships.join(room, reason: nil, by: bob) }
        await server.close()
    }

    @Test("a restricted room says when this server can't tell, and when nobody may let anyone in")
    func restrictedFailures() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let memberships = server.homeserver.memberships
        let foreign = try await server.room(of: alice, version: "10") {
            $0.initialState = restricted("restricted", to: RoomID("!elsewhere:example.org")!)
        }
        let unable = await #expect(throws: MatrixError.self) {
            try await memberships.join(foreign, reason: nil, by: bob)
        }
        #expect(unable?.code == .unableToAuthoriseJoin)
        let club = try await server.room(of: alice)
        try await memberships.join(club, reason: nil, by: bob)
        let room = try await server.room(of: alice, version: "10") {
            $0.initialState = restricted("restricted", to: club)
            $0.powerLevels = ["invite": 100]
        }
        try await memberships.leave(room, reason: nil, by: alice)
        let nobody = await #expect(throws: MatrixError.self) { try await memberships.join(room, reason: nil, by: bob) }
        #expect(nobody?.code == .unableToGrantJoin)
        await server.close()
    }

    @Test("knocking shows the room to who knocks, the knock to who is in it, and ends with an invitation")
    func knocking() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let memberships = server.homeserver.memberships
        let open = try await server.room(of: alice)
        await #expect(throws: MatrixError.self) { try await memberships.knock(open, reason: nil, by: bob) }
        let room = try await server.room(of: alice) {
            $0.preset = .privateChat
            $0.name = "Behind the door"
            $0.initialState = [.init(key: .joinRules, content: ["join_rule": "knock"])]
        }
        let since = try #require(try await server.sync(bob)["next_batch"]?.string)
        try await memberships.knock(room, reason: "it's me", by: bob)
        try await memberships.knock(room, reason: "again", by: bob)
        let knocked = try await server.sync(bob, since: since)["rooms"]?["knock"]?[room.string]?["knock_state"]?[
            "events"]
        #expect(knocked?.elements.contains { $0["content"]?["name"]?.string == "Behind the door" } == true)
        let seen = try await server.homeserver.reading.state(
            of: room, key: .member(bob.userID), wholeEvent: false, for: alice)
        #expect(contains(seen, "it's me"))
        await #expect(throws: MatrixError.self) { try await memberships.join(room, reason: nil, by: bob) }
        await #expect(throws: MatrixError.self) { try await server.history(of: room, for: bob) }
        try await memberships.invite(bob.userID, to: room, reason: nil, by: alice)
        try await memberships.join(room, reason: nil, by: bob)
        await server.close()
    }

    @Test("the directory lists what was published, largest first, by pages and by words")
    func directory() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let directory = server.homeserver.directory
        var rooms: [RoomID] = []
        for number in 0..<5 {
            rooms.append(
                try await server.room(of: alice, version: "11") {
                    $0.isPublished = number != 0
                    $0.name = "Room \(number)"
                    $0.creationContent = number == 4 ? ["type": "m.space"] : [:]
                })
        }
        try await server.homeserver.memberships.join(rooms[3], reason: nil, by: bob)
        func names(_ answer: JSON) -> [String] {
            answer["chunk"]?.arrayValue?.compactMap { $0["name"]?.stringValue } ?? []
        }
        func list(_ limit: Int? = nil, _ since: String? = nil, _ term: String? = nil, types: [String?]? = nil)
            async throws -> JSON
        {
            try await directory.publishedRooms(.init(limit: limit, since: since, searchTerm: term, roomTypes: types))
        }
        let all = try await list()
        #expect(names(all)[0] == "Room 3" && Set(names(all)) == ["Room 1", "Room 2", "Room 3", "Room 4"])
        #expect(all["chunk"]?.arrayValue?[0]["num_joined_members"] == 2)
        #expect(all["chunk"]?.arrayValue?[0]["join_rule"] == "public")
        let first = try await list(3)
        let second = try await list(3, first["next_batch"]?.stringValue)
        #expect(Set(names(first) + names(second)) == Set(names(all)) && names(second).count == 1)
        #expect(second["next_batch"] == nil && second["prev_batch"] == "p0")
        #expect(names(try await list(nil, nil, "rOOm 2")) == ["Room 2"])
        #expect(names(try await list(types: ["m.space"])) == ["Room 4"])
        #expect(names(try await list(types: [nil])).count == 3)
        await #expect(throws: MatrixError.self) { try await list(nil, "nonsense") }
        await #expect(throws: MatrixError.self) { try await directory.setPublished(false, rooms[1], by: bob) }
        try await directory.setPublished(false, rooms[1], by: alice)
        #expect(try await directory.isPublished(rooms[1]) == false)
        #expect(names(try await list()).count == 3)
        // What has been listed before is listed as it has become.
        let nameEvent = try await server.homeserver.sending.setState(
            StateKey("m.room.name"), content: ["name": "Another name"], in: rooms[3], by: alice)
        try await server.homeserver.memberships.leave(rooms[3], reason: nil, by: bob)
        let renamed = try await list(nil, nil, "another")["chunk"]?.arrayValue
        #expect(renamed?.count == 1 && renamed?[0]["num_joined_members"] == 1)
        _ = try await server.homeserver.sending.send(
            "m.room.redaction", content: [:], to: rooms[3], transactionID: "r", redacts: nameEvent, by: alice)
        server.clock.advance(by: 60_001)
        #expect(names(try await list(nil, nil, "another")).isEmpty)
        await server.close()
    }

    @Test("context shows an event between its neighbours, and what may not be read stays hidden")
    func context() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let room = try await server.room(of: alice)
        var events: [EventID] = []
        for number in 0..<9 {
            server.clock.advance(by: 1_000)
            events.append(try await server.say("\(number)", in: room, by: alice))
        }
        func context(_ event: EventID, _ limit: Int, _ user: Requester) async throws -> JSONView {
            try JSONDocument(
                parsing: try await server.homeserver.reading.context(
                    of: event, in: room, limit: limit, filter: RoomEventFilter(), for: user)
            ).root
        }
        func bodies(_ view: JSONView?) -> [String] {
            view?.elements.compactMap { $0["content"]?["body"]?.string } ?? []
        }
        let middle = try await context(events[4], 6, alice)
        #expect(middle["event"]?["event_id"]?.string == events[4].string)
        #expect(bodies(middle["events_before"]) == ["3", "2", "1"])
        #expect(bodies(middle["events_after"]) == ["5", "6", "7"])
        #expect(middle["state"]?.elements.contains { $0["type"]?.string == "m.room.create" } == true)
        // Its tokens go on where it ends.
        for (token, backwards, expected) in [("start", true, "0"), ("end", false, "8")] {
            let page = try JSONDocument(
                parsing: try await server.homeserver.reading.messages(
                    in: room,
                    .init(
                        from: middle[token]?.string, to: nil, backwards: backwards, limit: 1, filter: RoomEventFilter()),
                    for: alice)
            ).root
            #expect(bodies(page["chunk"]) == [expected])
        }
        #expect(bodies(try await context(events[8], 6, alice)["events_after"]).isEmpty)
        await #expect(throws: MatrixError.self) { try await context(events[4], 6, bob) }
        let reading = server.homeserver.reading
        let time = server.clock.now - 3_500
        #expect(try await reading.event(in: room, nearest: time, forwards: true, for: alice).0 == events[5])
        #expect(try await reading.event(in: room, nearest: time, forwards: false, for: alice).0 == events[4])
        await #expect(throws: MatrixError.self) {
            try await reading.event(in: room, nearest: server.clock.now + 1, forwards: true, for: alice)
        }
        await server.close()
    }
}
