import MatrixCore
import RoostTestSupport
import Testing

@testable import Homeserver

@Suite("Sticky events", .onEachEngine)
struct StickyEventTests {
    private func stick(
        _ name: String, _ server: TestServer, _ room: RoomID, _ user: Requester, for duration: Int64 = 300_000
    ) async throws -> EventID {
        try await server.homeserver.sending.send(
            "m.rtc.member", content: ["name": .string(name)], to: room, transactionID: name, sticky: duration,
            by: user)
    }

    private func told(_ answer: JSONView, _ room: RoomID) -> [String] {
        answer["rooms"]?["join"]?[room.string]?["msc4354_sticky"]?["events"]?.elements.compactMap {
            $0["content"]?["name"]?.string
        } ?? []
    }

    private func slidingTold(_ answer: JSONView, _ room: RoomID) -> [String] {
        answer["extensions"]?["org.matrix.msc4354.sticky_events"]?["rooms"]?[room.string]?["events"]?.elements
            .compactMap { $0["content"]?["name"]?.string } ?? []
    }

    private static let narrow = #"{"room":{"timeline":{"limit":1}}}"#

    @Test("they come behind a gap as well, once, and not when they have ended")
    func delivery() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob"),
            carol = try await server.user("carol")
        let room = try await server.room(of: alice) {
            $0.initialState = [.init(key: .historyVisibility, content: ["history_visibility": "joined"])]
        }
        try await server.homeserver.memberships.join(room, reason: nil, by: bob)
        let body: JSON = [
            "extensions": ["org.matrix.msc4354.sticky_events": ["enabled": true]],
            "lists": ["all": ["range": [0, 9], "timeline_limit": 1, "required_state": [:]]],
        ]
        let since = try #require(try await server.sync(bob)["next_batch"]?.string)
        let pos = try #require(try await server.slidingSync(bob, body)["pos"]?.string)
        let first = try await stick("first", server, room, alice)
        _ = try await stick("short", server, room, alice, for: 1_000)
        _ = try await stick("redacted", server, room, alice)
        _ = try await stick("last", server, room, alice)
        for number in 0..<5 { try await server.say("\(number)", in: room, by: alice) }
        let redacted = try #require(
            try await server.sync(alice, filter: #"{"room":{"timeline":{"limit":50}}}"#)["rooms"]?["join"]?[
                room.string]?[
                    "timeline"]?["events"]?.elements.first { $0["content"]?["name"]?.string == "redacted" }?[
                    "event_id"]?
                .string)
        _ = try await server.homeserver.sending.send(
            "m.room.redaction", content: [:], to: room, transactionID: "r", redacts: EventID(unchecked: redacted),
            by: alice)
        server.clock.advance(by: 2_000)
        let answer = try await server.sync(bob, since: since, filter: Self.narrow)
        #expect(told(answer, room) == ["first", "last"])
        let event = try #require(
            answer["rooms"]?["join"]?[room.string]?["msc4354_sticky"]?["events"]?.elements.first { _ in true })
        #expect(event["event_id"]?.string == first.string)
        #expect(event["msc4354_sticky"]?["duration_ms"]?.integer == 300_000)
        #expect(event["unsigned"]?["msc4354_sticky_duration_ttl_ms"]?.integer == 298_000)
        let after = try await server.sync(bob, since: try #require(answer["next_batch"]?.string), filter: Self.narrow)
        #expect(told(after, room).isEmpty)
        // What the timeline shows isn't shown twice.
        let wide = try await server.sync(bob, since: since, filter: #"{"room":{"timeline":{"limit":50}}}"#)
        #expect(told(wide, room).isEmpty)
        let sliding = try await server.slidingSync(bob, body, pos: pos)
        #expect(slidingTold(sliding, room) == ["first", "last"])
        let next = try await server.slidingSync(bob, body, pos: try #require(sliding["pos"]?.string))
        #expect(slidingTold(next, room).isEmpty)
        // Who joins gets all there are, whatever the history shows.
        let before = try #require(try await server.sync(carol)["next_batch"]?.string)
        try await server.homeserver.memberships.join(room, reason: nil, by: carol)
        #expect(told(try await server.sync(carol, since: before, filter: Self.narrow), room) == ["first", "last"])
        #expect(slidingTold(try await server.slidingSync(carol, body), room) == ["first", "last"])
        server.clock.advance(by: 300_000)
        #expect(told(try await server.sync(bob, filter: Self.narrow), room).isEmpty)
        #expect(slidingTold(try await server.slidingSync(bob, body), room).isEmpty)
        await server.close()
    }

    @Test("of more than fit, the rest comes with the next answers, each once, also where more come meanwhile")
    func many() async throws {
        let directory = TemporaryDirectory()
        let clock = ManualSurroundings()
        var server = try await TestServer(directory: directory, clock: clock)
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        var rooms: [RoomID] = []
        for _ in 0..<3 {
            let room = try await server.room(of: alice)
            try await server.homeserver.memberships.join(room, reason: nil, by: bob)
            rooms.append(room)
        }
        let body: JSON = [
            "extensions": ["org.matrix.msc4354.sticky_events": ["enabled": true]],
            "lists": ["all": ["range": [0, 0], "timeline_limit": 1, "required_state": [:]]],
        ]
        var since = try #require(try await server.sync(bob, filter: Self.narrow)["next_batch"]?.string)
        var pos = try #require(try await server.slidingSync(bob, body)["pos"]?.string)
        var sent: [[String]] = [[], [], []]
        func stick(_ index: Int, _ count: Int) async throws {
            for _ in 0..<count {
                let name = "\(index)-\(sent[index].count)"
                _ = try await self.stick(name, server, rooms[index], alice, for: 3_000_000)
                sent[index].append(name)
            }
            try await server.say("newest", in: rooms[index], by: alice)
        }
        for (index, count) in [20, 520, 30].enumerated() { try await stick(index, count) }
        var found: [[String]] = [[], [], []], slidingFound = found
        for round in 0..<4 {
            let answer = try await server.sync(bob, since: since, filter: Self.narrow)
            since = try #require(answer["next_batch"]?.string)
            let sliding = try await server.slidingSync(bob, body, pos: pos)
            pos = try #require(sliding["pos"]?.string)
            var counts = (0, 0)
            for (index, room) in rooms.enumerated() {
                found[index] += told(answer, room)
                slidingFound[index] += slidingTold(sliding, room)
                counts.0 += told(answer, room).count
                counts.1 += slidingTold(sliding, room).count
            }
            #expect(counts.0 <= 500 && counts.1 <= 500)
            // Meanwhile more come, in rooms that were told to their end and in others, and the server starts anew.
            if round == 0 {
                for index in 0..<3 { try await stick(index, 2) }
                await server.close()
                server = try await TestServer(directory: directory, clock: clock)
            }
        }
        #expect(found == sent)
        #expect(slidingFound == sent)
        await server.close()
    }

    @Test("A20: whoever isn't in the room gets none")
    func strangers() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let room = try await server.room(of: alice)
        try await server.homeserver.memberships.join(room, reason: nil, by: bob)
        let since = try #require(try await server.sync(bob)["next_batch"]?.string)
        try await server.homeserver.memberships.leave(room, reason: nil, by: bob)
        _ = try await stick("hidden", server, room, alice)
        let body: JSON = [
            "extensions": ["org.matrix.msc4354.sticky_events": ["enabled": true]],
            "room_subscriptions": [room.string: ["timeline_limit": 20, "required_state": [["*", "*"]]]],
        ]
        for answer in [try await server.sync(bob, since: since), try await server.slidingSync(bob, body)] {
            #expect(!String(decoding: answer.raw, as: UTF8.self).contains("hidden"))
        }
        await server.close()
    }

    @Test("a time in the future makes none sticky for longer")
    func future() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        let room = try await server.room(of: alice)
        _ = try await server.homeserver.sending.send(
            "m.rtc.member", content: ["name": "future"], to: room, transactionID: "1",
            timestamp: server.clock.now + 10_000_000, sticky: 1_000, by: alice)
        for number in 0..<3 { try await server.say("\(number)", in: room, by: alice) }
        #expect(told(try await server.sync(alice, filter: Self.narrow), room) == ["future"])
        server.clock.advance(by: 1_000)
        #expect(told(try await server.sync(alice, filter: Self.narrow), room).isEmpty)
        await server.close()
    }
}
