import MatrixCore
import RoostTestSupport
import Testing

@testable import Database
@testable import Homeserver

@Suite("Joins by way of several servers at once")
struct ConcurrentJoinTests {
    @Test("the state before each join is that of the server which let it happen, also if somebody came in meanwhile")
    func states() async throws {
        let first = ServerName(unchecked: "hs1.example"), third = ServerName(unchecked: "hs3.example")
        let held = HeldTransports()
        let scene = try await FederationScene(
            3, wrap: { held.add($0) { $0.destination == first && $0.target.contains("/send_join/") } })
        held[2].letGo()
        let alice = try await scene[0].user("alice"), carol = try await scene[2].user("carol")
        let bob = try await scene[1].user("bob"), bill = try await scene[1].user("bill")
        let room = try await scene[0].room(of: alice)
        func setTopic(_ topic: String) async throws {
            _ = try await scene[0].homeserver.sending.setState(
                StateKey("m.room.topic"), content: ["topic": .string(topic)], in: room, by: alice)
        }
        func topic(on index: Int, for user: Requester) async throws -> String? {
            let state = try await scene[index].homeserver.reading.state(
                of: room, key: StateKey("m.room.topic"), wholeEvent: false, for: user)
            return try JSONDocument(parsing: state).root["topic"]?.string
        }
        try await setTopic("old")
        try await scene[2].homeserver.memberships.join(room, reason: nil, via: [first], by: carol)
        // From here on these two don't hear of one another.
        scene.network.cut(from: first, to: third)
        scene.network.cut(from: third, to: first)
        scene[0].clock.advance(by: 1_000)
        try await setTopic("new")
        async let late: Void = scene[1].homeserver.memberships.join(room, reason: nil, via: [first], by: bob)
        try await scene.eventually("the join by the first server is under way") { held[1].held.count == 1 }
        try await scene[1].homeserver.memberships.join(room, reason: nil, via: [third], by: bill)
        #expect(try await topic(on: 1, for: bill) == "old")
        held[1].letGo()
        try await late
        #expect(try await topic(on: 1, for: bob) == "new")
        scene.network.mendAll()
        try await scene[0].say("from alice", in: room, by: alice)
        try await scene[1].say("from bob", in: room, by: bob)
        for (index, user) in [(0, alice), (1, bob), (2, carol)] {
            try await scene.eventually("all have it, and agree") {
                let isHeard = try await scene.texts(in: room, for: user, on: scene[index]).contains("from bob")
                let found = try await topic(on: index, for: user)
                return isHeard && found == "new"
            }
        }
        await scene.close()
    }

    @Test(
        "the members before a join are those that its server knows, also if it tells none and the room is whole meanwhile"
    )
    func members() async throws {
        let first = ServerName(unchecked: "hs1.example"), third = ServerName(unchecked: "hs3.example")
        let held = HeldTransports()
        let scene = try await FederationScene(
            3, configure: { $0.federation.partialFrom = 1 },
            wrap: { held.add($0) { $0.destination == first && $0.target.contains("/send_join/") } })
        held[2].letGo()
        let alice = try await scene[0].user("alice"), anna = try await scene[0].user("anna")
        let bob = try await scene[1].user("bob"), bill = try await scene[1].user("bill")
        let carol = try await scene[2].user("carol")
        let room = try await scene[0].room(of: alice)
        func isWhole(on index: Int) async throws -> Bool {
            try await scene[index].homeserver.database.room(room)?.partialJoin == nil
        }
        func members() async throws -> Set<String> {
            let answer = try await scene[1].homeserver.reading.joinedMembers(of: room, for: bill)
            return Set(try JSONDocument(parsing: answer).root["joined"]?.members.map(\.0) ?? [])
        }
        try await scene[0].homeserver.memberships.join(room, reason: nil, via: [], by: anna)
        try await scene[2].homeserver.memberships.join(room, reason: nil, via: [first], by: carol)
        try await scene.eventually("the third server knows the room") { try await isWhole(on: 2) }
        // From here on these two don't hear of one another.
        scene.network.cut(from: first, to: third)
        scene.network.cut(from: third, to: first)
        scene[0].clock.advance(by: 1_000)
        try await scene[0].homeserver.memberships.leave(room, reason: nil, by: anna)
        async let late: Void = scene[1].homeserver.memberships.join(room, reason: nil, via: [first], by: bob)
        try await scene.eventually("the join by the first server is under way") { held[1].held.count == 1 }
        try await scene[1].homeserver.memberships.join(room, reason: nil, via: [third], by: bill)
        try await scene.eventually("the second server knows the room") { try await isWhole(on: 1) }
        #expect(try await members() == Set([alice, anna, bill, carol].map(\.userID.string)))
        held[1].letGo()
        try await late
        #expect(try await members() == Set([alice, bill, bob, carol].map(\.userID.string)))
        await scene.close()
    }

    @Test(
        "what is told of a room while the answer to the join is on its way is there when somebody has come in",
        arguments: [20, 1])
    func toldMeanwhile(partialFrom: Int) async throws {
        let held = HeldTransports()
        let scene = try await FederationScene(
            2, configure: { $0.federation.partialFrom = partialFrom },
            wrap: { held.add($0) { $0.target.contains("/send_join/") } })
        held[1].comesLate()
        let alice = try await scene[0].user("alice"), bob = try await scene[1].user("bob")
        let room = try await scene[0].room(of: alice), name = scene[0].configuration.serverName
        async let joining: Void = scene[1].homeserver.memberships.join(room, reason: nil, via: [name], by: bob)
        try await scene.eventually("the other server is let in") { held[1].held.count == 1 }
        let said = try await scene[0].say("said meanwhile", in: room, by: alice)
        try await scene[0].homeserver.memberships.leave(room, reason: nil, by: alice)
        try await scene.eventually("it has been told") { scene[0].homeserver.federation.sender.waiting.isEmpty }
        #expect(try await scene[1].homeserver.database.event(said) == nil)
        held[1].letGo()
        try await joining
        try await scene.eventually("it has heard both") {
            let state = try await scene[1].homeserver.reading.state(
                of: room, key: .member(alice.userID), wholeEvent: false, for: bob)
            let isGone = try JSONDocument(parsing: state).root["membership"]?.isString("leave") == true
            let texts = try await scene.texts(in: room, for: bob, on: scene[1])
            return isGone && texts.contains("said meanwhile")
        }
        await scene.close()
    }

    @Test("a join whose answer comes when its user has left the room again changes nothing")
    func overtaken() async throws {
        let first = ServerName(unchecked: "hs1.example")
        let held = HeldTransports()
        let state = FirstEvent { $0.target.contains("/v1/state/") }
        let scene = try await FederationScene(2, wrap: { held.add($0) { state.isMeant($0) } })
        let there = scene[1].homeserver
        let alice = try await scene[0].user("alice")
        let bob = try await scene[1].user("bob"), bill = try await scene[1].user("bill")
        let room = try await scene[0].room(of: alice)
        async let late: Void = there.memberships.join(room, reason: nil, via: [first], by: bob)
        try await scene.eventually("the state before the join is on its way") { held[1].held.count == 1 }
        // This one finds the other in the room.
        try await there.memberships.join(room, reason: nil, via: [first], by: bill)
        func members(_ index: Int, for user: Requester) async throws -> Set<String> {
            let answer = try await scene[index].homeserver.reading.joinedMembers(of: room, for: user)
            return Set(try JSONDocument(parsing: answer).root["joined"]?.members.map(\.0) ?? [])
        }
        #expect(try await members(1, for: bill) == Set([alice, bob, bill].map(\.userID.string)))
        scene[1].clock.advance(by: 1_000)
        try await there.memberships.leave(room, reason: nil, by: bill)
        try await there.memberships.leave(room, reason: nil, by: bob)
        try await scene.eventually("both have left") { try await members(0, for: alice) == [alice.userID.string] }
        held[1].letGo()
        try await late
        let record = try #require(try await there.database.room(room))
        #expect(!record.extremities.isEmpty && record.partialJoin == nil)
        #expect(try await there.database.membership(of: bob.nid, in: record.nid)?.membership == .leave)
        #expect(try await ConsistencyCheck(there.database).run().problems == [])
        await scene.close()
    }
}
