import Homeserver
import MatrixCore
import RoostTestSupport
import Synchronization
import Testing

@testable import Database

@Suite("Rooms that are joined before their members are known")
struct PartialJoinTests {
    /// Holds up the fetching of the members.
    private static func hold(_ held: HeldTransports, _ inner: any FederationTransport) -> any FederationTransport {
        let members = FirstEvent { $0.target.contains("/state_ids/") || $0.target.contains("/v1/state/") }
        return held.add(inner, holding: { members.isMeant($0) })
    }

    /// Two servers and a room of the first, whose members the second one, when it comes in, isn't going to get before the test lets it.
    private struct HeldStart {
        let held = HeldTransports()
        let scene: FederationScene
        let first = ServerName(unchecked: "hs1.example")
        let alice: Requester
        let bob: Requester
        let room: RoomID

        init() async throws {
            let held = held
            scene = try await FederationScene(
                2, configure: { $0.federation.partialFrom = 1 }, wrap: { PartialJoinTests.hold(held, $0) })
            alice = try await scene[0].user("alice")
            bob = try await scene[1].user("bob")
            room = try await scene[0].room(of: alice, version: "11")
        }
    }

    private func isPartial(_ room: RoomID, on server: TestServer) async throws -> Bool {
        try await server.homeserver.database.room(room)?.partialJoin != nil
    }

    private func members(_ room: RoomID, for user: Requester, on server: TestServer) async throws -> Set<String> {
        let answer = try await server.homeserver.reading.joinedMembers(of: room, for: user)
        return Set(try JSONDocument(parsing: answer).root["joined"]?.members.map(\.0) ?? [])
    }

    /// Has a server tell what authorises its events: all of the state that it knows.
    private func answerForAuthChains(of server: HostileServer, _ place: HostileServer.Place, on scene: FederationScene)
    {
        let own = server.name
        let chain = JSON.object(["auth_chain": .array(place.state.values.map(\.root.json))]).encoded()
        scene.network.forge { request in
            guard request.destination == own, request.target.contains("/event_auth/") else { return nil }
            return ServerResponse(status: 200, body: chain)
        }
    }

    /// The newest events of a room as a server knows it.
    private func newest(in room: RoomID, on server: TestServer) async throws -> [EventID] {
        let database = server.homeserver.database
        return try await database.events(try #require(try await database.room(room)?.extremities)).map(\.eventID)
    }

    private func bodies(_ sync: JSONView, _ room: RoomID) -> [String] {
        sync["rooms"]?["join"]?[room.string]?["timeline"]?["events"]?.elements
            .compactMap { $0["content"]?["body"]?.string } ?? []
    }

    @Test("don't contradict themselves, whoever was invited, disinvited and in them before")
    func consistency() async throws {
        let held = HeldTransports()
        let scene = try await FederationScene(
            2, configure: { $0.federation.partialFrom = 1 }, wrap: { Self.hold(held, $0) })
        let (here, there) = (scene[0].homeserver, scene[1].homeserver)
        let alice = try await scene[0].user("alice")
        let bob = try await scene[1].user("bob")
        let room = try await scene[0].room(of: alice)
        func check() async throws {
            let report = try await ConsistencyCheck(there.database).run()
            #expect(report.isClean, "\(report.problems)")
        }
        func comeIn() async throws {
            try await here.memberships.invite(bob.userID, to: room, reason: nil, by: alice)
            try await check()
            try await here.memberships.remove(bob.userID, from: room, .kick, reason: nil, by: alice)
            try await scene.eventually("the invitation is taken back") {
                try await scene[1].sync(bob)["rooms"]?["invite"]?[room.string] == nil
            }
            try await check()
            try await there.memberships.join(
                room, reason: nil, via: [scene[0].configuration.serverName], by: bob)
        }
        try await comeIn()
        #expect(try await isPartial(room, on: scene[1]))
        try await check()
        held[1].letGo()
        try await scene.eventually("the room is whole") { try await !isPartial(room, on: scene[1]) }
        try await check()
        // Again, with members known from before.
        try await there.memberships.leave(room, reason: nil, by: bob)
        try await scene.eventually("the leave is heard") {
            try await members(room, for: alice, on: scene[0]) == [alice.userID.string]
        }
        scene.network.forge { request in
            request.target.contains("/state_ids/") ? ServerResponse(status: 500, body: []) : nil
        }
        try await comeIn()
        #expect(try await isPartial(room, on: scene[1]))
        try await check()
        await scene.close()
    }

    @Test("are used at once, by everybody, and whole once the members have come")
    func conversation() async throws {
        let held = HeldTransports()
        let scene = try await FederationScene(
            3, configure: { $0.federation.partialFrom = 1 }, wrap: { Self.hold(held, $0) })
        let first = scene[0].configuration.serverName
        let alice = try await scene[0].user("alice")
        let bob = try await scene[1].user("bob")
        let carol = try await scene[2].user("carol")
        let dora = try await scene[1].user("dora")
        let room = try await scene[0].room(of: alice, version: "12")
        // Nobody waits for the third server's own.
        held[2].letGo()
        try await scene[2].homeserver.memberships.join(room, reason: nil, via: [first], by: carol)
        try await scene[1].homeserver.memberships.join(room, reason: nil, via: [first], by: bob)
        #expect(try await isPartial(room, on: scene[1]))

        // Both directions, also with a server of which only its name is known.
        try await scene[1].say("from bob", in: room, by: bob)
        try await scene.eventually("carol reads what bob says") {
            try await scene.texts(in: room, for: carol, on: scene[2]).contains("from bob")
        }
        try await scene[2].say("from carol", in: room, by: carol)
        try await scene.eventually("bob reads what carol says, while members are missing") {
            try await scene.texts(in: room, for: bob, on: scene[1]).contains("from carol")
        }
        #expect(try await isPartial(room, on: scene[1]))
        // Another user comes in by the server that knows whether they may.
        try await scene[1].homeserver.memberships.join(room, reason: nil, via: [first], by: dora)
        try await scene[1].say("from dora", in: room, by: dora)
        let before = try await scene[1].sync(bob, filter: #"{"room":{"state":{"lazy_load_members":true}}}"#)
        #expect(bodies(before, room).suffix(3) == ["from bob", "from carol", "from dora"])
        // Who came by what is asked waits for it, and is answered.
        async let waiting = members(room, for: bob, on: scene[1])
        // So does another server that asks.
        async let template = scene[1].homeserver.federation.memberships.template(
            .join, for: UserID(unchecked: "@eve:hs3.example"), in: room, versions: ["12"],
            by: ServerName(unchecked: "hs3.example"))

        held[1].letGo()
        let all = Set([alice, bob, carol, dora].map(\.userID.string))
        try await scene.eventually("the room is whole") { try await !isPartial(room, on: scene[1]) }
        #expect(try await waiting == all)
        #expect(try await template["event"]?["sender"] == "@eve:hs3.example")
        #expect(try await isPartial(room, on: scene[1]) == false)
        let since = try #require(before["next_batch"]?.string)
        let after = try await scene[1].sync(bob, since: since)
        let told = after["rooms"]?["join"]?[room.string]?["state"]?["events"]?.elements
            .compactMap { $0["state_key"]?.string }
        #expect(told?.contains(alice.userID.string) == true)
        try await scene.eventually("all agree on the members") {
            for (user, server) in [(alice, scene[0]), (bob, scene[1]), (carol, scene[2])] {
                if try await members(room, for: user, on: server) != all { return false }
            }
            return true
        }
        let report = try await ConsistencyCheck(scene[1].homeserver.database).run()
        #expect(report.problems == [])
        await scene.close()
    }

    @Test("become whole also after a restart, and go on by another server if the one is gone")
    func restart() async throws {
        let held = HeldTransports()
        let scene = try await FederationScene(
            3, configure: { $0.federation.partialFrom = 1 }, wrap: { Self.hold(held, $0) })
        let first = scene[0].configuration.serverName
        let alice = try await scene[0].user("alice")
        let bob = try await scene[1].user("bob")
        let carol = try await scene[2].user("carol")
        let room = try await scene[0].room(of: alice)
        held[2].letGo()
        try await scene[2].homeserver.memberships.join(room, reason: nil, via: [first], by: carol)
        try await scene.eventually("the third server knows the room") { try await !isPartial(room, on: scene[2]) }
        try await scene[1].homeserver.memberships.join(room, reason: nil, via: [first], by: bob)
        #expect(try await isPartial(room, on: scene[1]))
        // Another server that has been joined by knows the join, too.
        try await scene.eventually("carol's server has bob") {
            try await members(room, for: carol, on: scene[2]).contains(bob.userID.string)
        }
        scene.network.cut(first)
        held[1].letGo()
        await scene[1].close()
        let again = try await TestServer(
            directory: scene[1].directory, clock: scene[1].clock,
            transport: scene.network.transport(of: scene[1].configuration.serverName)
        ) {
            $0.serverName = scene[1].configuration.serverName
            $0.federation.partialFrom = 1
        }
        scene.network.connect(again.homeserver)
        try await again.homeserver.startJobs()
        try await scene.eventually("the members are fetched by the server that is left") {
            try await !isPartial(room, on: again)
        }
        #expect(
            try await members(room, for: bob, on: again)
                == Set([alice, bob, carol].map(\.userID.string)))
        await again.close()
        for index in [0, 2] { await scene[index].close() }
    }

    @Test("are asked for once an hour where nobody can tell the members")
    func forgotten() async throws {
        let isForgotten = Mutex(true), asked = Mutex(0)
        let scene = try await FederationScene(2, configure: { $0.federation.partialFrom = 1 })
        scene.network.forge { request in
            guard request.target.contains("/v1/state_ids/") else { return nil }
            asked.withLock { $0 += 1 }
            let body = #"{"errcode":"M_NOT_FOUND","error":"There is no such event."}"#
            return isForgotten.withLock { $0 } ? ServerResponse(status: 404, body: Array(body.utf8)) : nil
        }
        let alice = try await scene[0].user("alice"), bob = try await scene[1].user("bob")
        let room = try await scene[0].room(of: alice), first = scene[0].configuration.serverName
        try await scene[1].homeserver.memberships.join(room, reason: nil, via: [first], by: bob)
        try await scene.eventually("the members are asked for") { asked.withLock { $0 } > 0 }
        for _ in 0..<60 {
            scene[1].clock.advance(by: 30_000)
            try await Task.sleep(for: .milliseconds(3))
        }
        #expect(asked.withLock { $0 } == 1)
        isForgotten.withLock { $0 = false }
        scene[1].clock.advance(by: 1_800_000)
        try await scene.eventually("the room is whole") { try await !isPartial(room, on: scene[1]) }
        await scene.close()
    }

    @Test("aren't whole while one of the members' events hasn't come")
    func incomplete() async throws {
        let failing = FailingTransport()
        let scene = try await FederationScene(
            2, configure: { $0.federation.partialFrom = 1 }, wrap: { failing.between($0) })
        let first = scene[0].configuration.serverName
        let alice = try await scene[0].user("alice"), anna = try await scene[0].user("anna")
        let bob = try await scene[1].user("bob")
        let room = try await scene[0].room(of: alice)
        try await scene[0].homeserver.memberships.join(room, reason: nil, via: [], by: anna)
        failing.fail { $0.target.hasPrefix("/_matrix/federation/v1/event/") }
        try await scene[1].homeserver.memberships.join(room, reason: nil, via: [first], by: bob)
        try await scene.eventually("an event of the state was asked for, again and again") { failing.failed > 1 }
        #expect(try await isPartial(room, on: scene[1]))
        failing.fail { _ in false }
        try await scene.eventually("the room is whole") { try await !isPartial(room, on: scene[1]) }
        #expect(try await members(room, for: bob, on: scene[1]) == Set([alice, anna, bob].map(\.userID.string)))
        await scene.close()
    }

    @Test("take up what a member says who isn't known yet, also where it belongs before what has come")
    func late() async throws {
        let start = try await HeldStart()
        let (held, scene, room) = (start.held, start.scene, start.room)
        let (first, alice, bob) = (start.first, start.alice, start.bob)
        let dora = try await scene[1].user("dora")
        let other = HostileServer("other.example", on: scene.network, clock: scene[0].clock)
        let oscar = other.user("oscar")
        let place = try await other.join(room, as: oscar, at: first)
        try await scene[1].homeserver.memberships.join(room, reason: nil, via: [first], by: bob)
        #expect(try await isPartial(room, on: scene[1]))
        answerForAuthChains(of: other, place, on: scene)
        let event = try other.event(
            "m.room.message", content: ["msgtype": "m.text", "body": "late"], by: oscar, in: place,
            previous: try await newest(in: room, on: scene[1]))
        // Who comes in next comes in upon it, and it isn't there.
        try await other.send([event.root.json], id: "first", to: first)
        try await scene.eventually("alice reads it") {
            try await scene.texts(in: room, for: alice, on: scene[0]) == ["late"]
        }
        try await scene[1].homeserver.memberships.join(room, reason: nil, via: [first], by: dora)
        #expect(try await scene[1].homeserver.database.event(event.eventID) == nil)
        try await other.send([event.root.json], id: "second", to: scene[1].configuration.serverName)
        try await scene.eventually("bob reads it") {
            try await scene.texts(in: room, for: bob, on: scene[1]) == ["late"]
        }
        #expect(try await isPartial(room, on: scene[1]))
        held[1].letGo()
        try await scene.eventually("the room is whole") { try await !isPartial(room, on: scene[1]) }
        #expect(try await scene.texts(in: room, for: bob, on: scene[1]) == ["late"])
        #expect(try await ConsistencyCheck(scene[1].homeserver.database).run().problems == [])
        await scene.close()
    }

    @Test("keep the state that another server told of a later join, once they are whole, with the members before it")
    func laterJoin() async throws {
        let held = HeldTransports()
        let scene = try await FederationScene(
            3, configure: { $0.federation.partialFrom = 1 }, wrap: { Self.hold(held, $0) })
        let first = ServerName(unchecked: "hs1.example"), third = ServerName(unchecked: "hs3.example")
        let there = scene[1].homeserver
        let alice = try await scene[0].user("alice"), anna = try await scene[0].user("anna")
        let bob = try await scene[1].user("bob"), bill = try await scene[1].user("bill")
        let carol = try await scene[2].user("carol")
        let room = try await scene[0].room(of: alice)
        func setTopic(_ topic: String) async throws {
            _ = try await scene[0].homeserver.sending.setState(
                StateKey("m.room.topic"), content: ["topic": .string(topic)], in: room, by: alice)
        }
        func topic() async throws -> String? {
            let state = try await there.reading.state(
                of: room, key: StateKey("m.room.topic"), wholeEvent: false, for: bob)
            return try JSONDocument(parsing: state).root["topic"]?.string
        }
        held[2].letGo()
        try await setTopic("old")
        try await scene[0].homeserver.memberships.join(room, reason: nil, via: [], by: anna)
        try await scene[2].homeserver.memberships.join(room, reason: nil, via: [first], by: carol)
        try await scene.eventually("the third server knows the room") { try await !isPartial(room, on: scene[2]) }
        // From here on these two don't hear of one another.
        scene.network.cut(from: first, to: third)
        scene.network.cut(from: third, to: first)
        scene[0].clock.advance(by: 1_000)
        try await scene[0].homeserver.memberships.leave(room, reason: nil, by: anna)
        try await setTopic("new")
        try await there.memberships.join(room, reason: nil, via: [third], by: bill)
        try await there.memberships.join(room, reason: nil, via: [first], by: bob)
        #expect(try await isPartial(room, on: scene[1]))
        #expect(try await topic() == "new")
        held[1].letGo()
        try await scene.eventually("the room is whole") { try await !isPartial(room, on: scene[1]) }
        #expect(try await topic() == "new")
        #expect(try await members(room, for: bob, on: scene[1]) == Set([alice, bob, bill, carol].map(\.userID.string)))
        #expect(try await ConsistencyCheck(there.database).run().problems == [])
        await scene.close()
    }

    @Test("judge who turned an invitation down before their server was there")
    func unjudged() async throws {
        let scene = try await FederationScene(2, configure: { $0.federation.partialFrom = 1 })
        let first = scene[0].configuration.serverName
        let there = scene[1].homeserver
        let alice = try await scene[0].user("alice")
        let bob = try await scene[1].user("bob")
        let dora = try await scene[1].user("dora")
        let room = try await scene[0].room(of: alice, version: "11")
        try await scene[0].homeserver.memberships.invite(bob.userID, to: room, reason: nil, by: alice)
        try await there.memberships.leave(room, reason: nil, by: bob)
        func leave() async throws -> StoredEvent? {
            let nid = try #require(try await there.database.room(room)?.nid)
            let membership = try #require(try await there.database.membership(of: bob.nid, in: nid))
            return try await there.database.events([membership.event]).first
        }
        #expect(try await leave()?.isJudged == false)
        try await there.memberships.join(room, reason: nil, via: [first], by: dora)
        try await scene.eventually("the room is whole") { try await !isPartial(room, on: scene[1]) }
        let stored = try #require(try await leave())
        #expect(stored.isJudged && !stored.auth.isEmpty && !stored.flags.contains(.rejected))
        #expect(try await ConsistencyCheck(there.database).run().problems == [])
        await scene.close()
    }

    @Test("take back what somebody said who had no right to, once that is known")
    func banned() async throws {
        let start = try await HeldStart()
        let (held, scene, room) = (start.held, start.scene, start.room)
        let (first, alice, bob) = (start.first, start.alice, start.bob)
        let evil = HostileServer("evil.example", on: scene.network, clock: scene[0].clock)
        let mallory = evil.user("mallory")
        let place = try await evil.join(room, as: mallory, at: first)
        try await scene[0].homeserver.memberships.remove(mallory, from: room, .ban, reason: nil, by: alice)
        try await scene[1].homeserver.memberships.join(room, reason: nil, via: [first], by: bob)
        #expect(try await isPartial(room, on: scene[1]))
        // It names the join that was over when it was sent, upon the newest event.
        let previous = try await newest(in: room, on: scene[1])
        answerForAuthChains(of: evil, place, on: scene)
        let event = try evil.event(
            "m.room.message", content: ["msgtype": "m.text", "body": "still here"], by: mallory, in: place,
            previous: previous)
        try await evil.send([event.root.json], id: "banned", to: scene[1].configuration.serverName)
        try await scene.eventually("it is taken for what it seems to be") {
            try await scene.texts(in: room, for: bob, on: scene[1]).contains("still here")
        }
        held[1].letGo()
        try await scene.eventually("the room is whole") { try await !isPartial(room, on: scene[1]) }
        #expect(try await !scene.texts(in: room, for: bob, on: scene[1]).contains("still here"))
        #expect(try await members(room, for: bob, on: scene[1]) == Set([alice, bob].map(\.userID.string)))
        // The others read on.
        try await scene[1].say("from bob", in: room, by: bob)
        try await scene.eventually("alice reads what bob says") {
            try await scene.texts(in: room, for: alice, on: scene[0]).contains("from bob")
        }
        await scene.close()
    }

    @Test("take back what somebody said upon the past who had been put out before, once that is known")
    func evading() async throws {
        let failing = FailingTransport()
        let scene = try await FederationScene(
            2, configure: { $0.federation.partialFrom = 1 }, wrap: { failing.between($0) })
        let first = scene[0].configuration.serverName
        let alice = try await scene[0].user("alice")
        let bob = try await scene[1].user("bob")
        let room = try await scene[0].room(of: alice, version: "11")
        try await scene[1].homeserver.memberships.join(room, reason: nil, via: [first], by: bob)
        try await scene.eventually("the room is whole") { try await !isPartial(room, on: scene[1]) }
        let evil = HostileServer("evil.example", on: scene.network, clock: scene[0].clock)
        let mallory = evil.user("mallory")
        let place = try await evil.join(room, as: mallory, at: first)
        try await scene.eventually("bob sees who came in") {
            try await members(room, for: bob, on: scene[1]).contains(mallory.string)
        }
        // The ban comes while nobody of the second server is there.
        try await scene[1].homeserver.memberships.leave(room, reason: nil, by: bob)
        try await scene.eventually("the leave is heard") {
            try await !members(room, for: alice, on: scene[0]).contains(bob.userID.string)
        }
        try await scene[0].homeserver.memberships.remove(mallory, from: room, .ban, reason: nil, by: alice)
        failing.fail { $0.target.contains("/state_ids/") || $0.target.contains("/v1/state/") }
        try await scene[1].homeserver.memberships.join(room, reason: nil, via: [first], by: bob)
        #expect(try await isPartial(room, on: scene[1]))
        let event = try evil.event(
            "m.room.message", content: ["msgtype": "m.text", "body": "I never heard"], by: mallory, in: place)
        try await evil.send([event.root.json], id: "evading", to: scene[1].configuration.serverName)
        try await scene.eventually("it is taken for what it seems to be") {
            try await scene.texts(in: room, for: bob, on: scene[1]).contains("I never heard")
        }
        try await scene[1].say("from bob", in: room, by: bob)
        failing.fail { _ in false }
        try await scene.eventually("the room is whole") { try await !isPartial(room, on: scene[1]) }
        #expect(try await scene.texts(in: room, for: bob, on: scene[1]) == ["from bob"])
        #expect(try await scene[1].homeserver.database.event(event.eventID)?.flags.contains(.softFailed) == true)
        #expect(try await members(room, for: bob, on: scene[1]) == Set([alice, bob].map(\.userID.string)))
        #expect(try await ConsistencyCheck(scene[1].homeserver.database).run().problems == [])
        try await scene.eventually("alice reads what bob says") {
            try await scene.texts(in: room, for: alice, on: scene[0]) == ["from bob"]
        }
        await scene.close()
    }

    @Test("believe no event that names a join from behind what it was sent upon")
    func fromBehind() async throws {
        let start = try await HeldStart()
        let (held, scene, room) = (start.held, start.scene, start.room)
        let (first, bob) = (start.first, start.bob)
        try await scene[1].homeserver.memberships.join(room, reason: nil, via: [first], by: bob)
        #expect(try await isPartial(room, on: scene[1]))
        let before = try await newest(in: room, on: scene[1])
        let evil = HostileServer("evil.example", on: scene.network, clock: scene[0].clock)
        let mallory = evil.user("mallory")
        let place = try await evil.join(room, as: mallory, at: first)
        try await scene.eventually("the join has come") {
            try await newest(in: room, on: scene[1]) == [place.tip.eventID]
        }
        func message(_ body: String, previous: [EventID]? = nil) throws -> Event {
            try evil.event(
                "m.room.message", content: ["msgtype": "m.text", "body": .string(body)], by: mallory, in: place,
                previous: previous)
        }
        let early = try message("from before I came", previous: before), right = try message("from now")
        try await evil.send(
            [early.root.json, right.root.json], id: "early", to: scene[1].configuration.serverName)
        try await scene.eventually("what was sent upon the join is there") {
            try await scene.texts(in: room, for: bob, on: scene[1]) == ["from now"]
        }
        #expect(try await isPartial(room, on: scene[1]))
        #expect(try await scene[1].homeserver.database.event(early.eventID)?.flags.contains(.rejected) == true)
        held[1].letGo()
        try await scene.eventually("the room is whole") { try await !isPartial(room, on: scene[1]) }
        #expect(try await scene.texts(in: room, for: bob, on: scene[1]) == ["from now"])
        await scene.close()
    }

    @Test("keep what somebody said who came, spoke and left before the members were known")
    func passing() async throws {
        let start = try await HeldStart()
        let (held, scene, room) = (start.held, start.scene, start.room)
        let (first, alice, bob) = (start.first, start.alice, start.bob)
        let there = scene[1].homeserver
        let dora = try await scene[1].user("dora")
        try await scene[0].homeserver.memberships.invite(dora.userID, to: room, reason: nil, by: alice)
        try await there.memberships.join(room, reason: nil, via: [first], by: bob)
        #expect(try await isPartial(room, on: scene[1]))
        try await there.memberships.join(room, reason: nil, via: [first], by: dora)
        try await scene[1].say("from dora", in: room, by: dora)
        try await there.memberships.leave(room, reason: nil, by: dora)
        try await scene[1].say("from bob", in: room, by: bob)
        held[1].letGo()
        try await scene.eventually("the room is whole") { try await !isPartial(room, on: scene[1]) }
        #expect(try await scene.texts(in: room, for: bob, on: scene[1]) == ["from dora", "from bob"])
        let record = try #require(try await there.database.room(room))
        #expect(record.extremities.count == 1)
        #expect(try await there.database.membership(of: dora.nid, in: record.nid)?.membership == .leave)
        try await scene[1].say("and more", in: room, by: bob)
        try await scene.eventually("alice reads all of it") {
            try await scene.texts(in: room, for: alice, on: scene[0]) == ["from dora", "from bob", "and more"]
        }
        #expect(try await ConsistencyCheck(there.database).run().problems == [])
        await scene.close()
    }

    @Test("take back what a redaction did whose sender had no right to it, and show nothing of a hidden reply")
    func undone() async throws {
        let start = try await HeldStart()
        let (held, scene, room) = (start.held, start.scene, start.room)
        let (first, alice, bob) = (start.first, start.alice, start.bob)
        let second = scene[1].configuration.serverName
        let evil = HostileServer("evil.example", on: scene.network, clock: scene[0].clock)
        let mallory = evil.user("mallory")
        let place = try await evil.join(room, as: mallory, at: first)
        let levels = try await scene[0].homeserver.sending.setState(
            .powerLevels,
            content: ["users": .object([alice.userID.string: 100, mallory.string: 50]), "users_default": 0], in: room,
            by: alice)
        try await scene[0].homeserver.memberships.remove(mallory, from: room, .ban, reason: nil, by: alice)
        try await scene[1].homeserver.memberships.join(room, reason: nil, via: [first], by: bob)
        let said = try await scene[1].say("needle", in: room, by: bob)
        #expect(try await isPartial(room, on: scene[1]))
        let stored = try #require(try await scene[0].homeserver.database.event(levels))
        var known = place
        known.state[.powerLevels] = try Event(receiving: stored.json, version: place.version)
        answerForAuthChains(of: evil, known, on: scene)
        let redaction = try evil.event(
            "m.room.redaction", content: ["redacts": .string(said.string)], by: mallory, in: known,
            previous: [said])
        let reply = try evil.event(
            "m.room.message",
            content: [
                "msgtype": "m.text", "body": "reply",
                "m.relates_to": ["rel_type": "m.thread", "event_id": .string(said.string)],
            ], by: mallory, in: known, previous: [said])
        try await evil.send([redaction.root.json, reply.root.json], id: "undone", to: second)
        try await scene.eventually("they are taken for what they seem to be") {
            let stored = try await scene[1].homeserver.database.event(said)
            let other = try await scene[1].homeserver.database.event(reply.eventID)
            return stored?.redactedBy != nil && other != nil
        }
        held[1].letGo()
        try await scene.eventually("the room is whole") { try await !isPartial(room, on: scene[1]) }
        #expect(try await scene.texts(in: room, for: bob, on: scene[1]) == ["needle"])
        let event = try await scene[1].homeserver.reading.event(said, in: room, for: bob)
        let shown = try JSONDocument(parsing: event).root
        #expect(shown["content"]?["body"]?.isString("needle") == true)
        #expect(shown["unsigned"]?["m.relations"]?["m.thread"] == nil)
        await scene.close()
    }
}
