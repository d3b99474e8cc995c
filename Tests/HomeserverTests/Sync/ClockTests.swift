import Database
import MatrixCore
import RoostTestSupport
import Testing

@testable import Homeserver

@Suite("Clocks that jump", .onEachEngine)
struct ClockTests {
    @Test("a clock that jumps back or ahead changes the order of nothing, loses nothing, and lets work go on")
    func jumps() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let room = try await server.room(of: alice)
        try await server.homeserver.memberships.join(room, reason: nil, by: bob)
        var since = try #require(try await server.sync(bob)["next_batch"]?.string)
        var shown: [String] = []
        let day: Int64 = 86_400_000
        for (number, jump) in [0, -3_650 * day, 1, 7_300 * day, -1, -day, 2 * day].enumerated() {
            server.clock.advance(by: jump)
            try await server.say("\(number)", in: room, by: [alice, bob][number % 2])
            let answer = try await server.sync(bob, since: since)
            since = try #require(answer["next_batch"]?.string)
            let events = answer["rooms"]?["join"]?[room.string]?["timeline"]?["events"]
            shown += events?.elements.compactMap { $0["content"]?["body"]?.string } ?? []
            for event in events!.elements { #expect(event["unsigned"]?["age"]?.integer ?? -1 >= 0) }
        }
        #expect(shown == (0..<7).map(String.init))
        #expect(try await server.history(of: room, for: alice) == shown.reversed())
        // Sessions and rights don't depend on the clock; typing ends when it is told to.
        try await server.homeserver.receipts.setTyping(1_000, in: room, by: alice)
        server.clock.advance(by: -day)
        try await server.homeserver.receipts.setTyping(nil, in: room, by: alice)
        let typing = try await server.sync(bob, since: since)["rooms"]?["join"]?[room.string]?["ephemeral"]?["events"]
        #expect(typing?.elements.map { $0["content"]?.json } == [["user_ids": []]])
        // A lease that was taken by a clock far ahead ends when that clock's node gives it back, or when its time has come.
        let database = server.homeserver.database
        let now = server.clock.now
        let ahead = try #require(try await database.lease("work", holder: "a", now: now + day, duration: 1_000))
        #expect(try await database.lease("work", holder: "b", now: now, duration: 1_000) == nil)
        var write = Write()
        write.release(ahead)
        try await database.write(write)
        #expect(try await database.lease("work", holder: "b", now: now, duration: 1_000) != nil)
        #expect(try await ConsistencyCheck(database).run().problems == [])
        await server.close()
    }
}
