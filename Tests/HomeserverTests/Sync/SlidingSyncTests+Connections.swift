import Database
import MatrixCore
import RoostTestSupport
import Testing

@testable import Homeserver

/// What connections remember: lost answers, restarts, several nodes, rooms that are gone.
extension SlidingSyncTests {
    @Test("an answer that was lost is given again, and positions from before are unknown")
    func retries() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let room = try await server.room(of: alice)
        let first = try pos(try await server.slidingSync(alice, Self.body()))
        try await server.say("one", in: room, by: alice)
        let lost = try await server.slidingSync(alice, Self.body(), pos: first)
        #expect(bodies(lost, room) == ["one"])
        try await server.say("two", in: room, by: alice)
        let again = try await server.slidingSync(alice, Self.body(), pos: first)
        #expect(bodies(again, room) == ["one", "two"])
        let next = try await server.slidingSync(alice, Self.body(), pos: try pos(again))
        #expect(rooms(next).isEmpty)
        try await server.say("three", in: room, by: alice)
        let third = try await server.slidingSync(alice, Self.body(), pos: try pos(next))
        _ = try await server.slidingSync(alice, Self.body(), pos: try pos(third))
        try await server.say("four", in: room, by: alice)
        _ = try await server.slidingSync(alice, Self.body(), pos: try pos(third))
        for unknown in [first, try pos(lost), "nonsense", try pos(third) + "-0"] {
            let failure = await #expect(throws: MatrixError.self) {
                try await server.slidingSync(alice, Self.body(), pos: unknown)
            }
            #expect(failure?.code == .unknownPosition, "\(unknown)")
        }
        // A position is its device's alone.
        let stolen = try pos(third)
        let failure = await #expect(throws: MatrixError.self) {
            try await server.slidingSync(bob, Self.body(), pos: stolen)
        }
        #expect(failure?.code == .unknownPosition)
        await server.close()
    }

    @Test("connections go on after a restart, and expire when nobody uses them or there are too many")
    func lifetime() async throws {
        let directory = TemporaryDirectory()
        let clock = ManualSurroundings()
        var server = try await TestServer(directory: directory, clock: clock)
        let alice = try await server.user("alice")
        let room = try await server.room(of: alice)
        var answer = try await server.slidingSync(alice, Self.body())
        let other = try pos(try await server.slidingSync(alice, Self.body(connection: "other")))
        await server.close()
        server = try await TestServer(directory: directory, clock: clock)
        try await server.say("after", in: room, by: alice)
        answer = try await server.slidingSync(alice, Self.body(), pos: try pos(answer))
        #expect(bodies(answer, room) == ["after"])
        #expect(answer["rooms"]?[room.string]?["initial"] == nil)

        clock.advance(by: 20 * 86_400_000)
        answer = try await server.slidingSync(alice, Self.body(), pos: try pos(answer))
        clock.advance(by: 20 * 86_400_000)
        // Beginning one ends those that are out of use.
        _ = try await server.slidingSync(alice, Self.body(connection: "third"))
        let kept = try pos(answer)
        _ = try await server.slidingSync(alice, Self.body(), pos: kept)
        let failure = await #expect(throws: MatrixError.self) {
            try await server.slidingSync(alice, Self.body(connection: "other"), pos: other)
        }
        #expect(failure?.code == .unknownPosition)
        for number in 0..<SlidingConnections.mostOfDevice {
            clock.advance(by: 1)
            _ = try await server.slidingSync(alice, Self.body(connection: "more \(number)"))
        }
        await #expect(throws: MatrixError.self) { try await server.slidingSync(alice, Self.body(), pos: kept) }
        await server.close()
    }

    @Test("a connection goes from node to node, and is told of everything once")
    func nodes() async throws {
        let directory = TemporaryDirectory()
        let first = try await TestServer(directory: directory)
        // A file belongs to one server; a PostgreSQL database to as many as there are.
        let isShared = EngineKind.current == .postgresql
        let second = isShared ? try await TestServer(directory: directory, clock: ManualSurroundings(seed: 2)) : first
        let alice = try await first.user("alice")
        let quiet = try await first.room(of: alice), lively = try await first.room(of: alice)
        var answer = try await first.slidingSync(alice, Self.body())
        #expect(Set(rooms(answer)) == [quiet.string, lively.string])
        for round in 0..<6 {
            let node = round % 2 == 0 ? second : first
            try await node.say("\(round)", in: lively, by: alice)
            let pos = try pos(answer)
            answer = try await node.slidingSync(alice, Self.body(), pos: pos)
            #expect(rooms(answer) == [lively.string] && bodies(answer, lively) == ["\(round)"])
            #expect(answer["rooms"]?[lively.string]?["initial"] == nil)
            // An answer that was lost is asked for at the other node, which hears of the message sooner or later.
            if round == 3 {
                answer = try await second.slidingSync(alice, Self.body(), pos: pos, timeout: 30_000)
                #expect(rooms(answer) == [lively.string] && bodies(answer, lively) == ["\(round)"])
            }
        }
        if isShared { await second.close() }
        await first.close()
    }

    @Test("of a room that is deleted connections remember nothing, and go on with the others")
    func purging() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let doomed = try await server.room(of: alice), other = try await server.room(of: alice)
        for room in [doomed, other] { try await server.homeserver.memberships.join(room, reason: nil, by: bob) }
        let number = try #require(try await server.homeserver.reading.rooms.room(doomed)).nid
        var answers: [Requester: JSONView] = [:]
        for user in [alice, bob] {
            let first = try await server.slidingSync(user, Self.body())
            #expect(Set(rooms(first)) == [doomed.string, other.string])
            // Confirmed, and some more pending.
            try await server.say("more", in: doomed, by: alice)
            answers[user] = try await server.slidingSync(user, Self.body(), pos: try pos(first))
        }
        func remembered() async throws -> Int64? {
            try await server.homeserver.database.read { reader in
                try await reader.first(
                    Statement("SELECT count(*) FROM sliding_rooms WHERE room_nid = $1"), [number.value]
                ) { $0.integer(0) }
            }
        }
        #expect(try await remembered() == 4)
        try await server.homeserver.purging.purge(doomed)
        #expect(try await remembered() == 0)
        try await server.say("goes on", in: other, by: alice)
        for user in [alice, bob] {
            let next = try await server.slidingSync(user, Self.body(), pos: try pos(try #require(answers[user])))
            #expect(rooms(next) == [other.string])
            #expect(next["lists"]?["all"]?["count"]?.integer == 1)
        }
        await server.close()
    }
}
