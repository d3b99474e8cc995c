import MatrixCore
import RoostTestSupport
import Testing

@testable import Database

@Suite("Gaps in a room's history", .onEachEngine)
struct GapTests {
    private func event(_ nid: EventNID, depth: Int64, position: Int64?) -> StoredEvent {
        StoredEvent(
            nid: nid, eventID: EventID(unchecked: "$\(nid)"), room: RoomNID(1), position: position, orderDepth: depth,
            type: EventTypeNID(1), sender: UserNID(1), stateKey: nil, stateBefore: nil, flags: [], originServerTS: 0,
            redactedBy: nil, replaces: nil, chain: nil, previous: [], auth: [], transactionKey: nil, cuts: [], json: [])
    }

    /// Events of the room from the newest back, in pages of `size`.
    private func backwards(_ database: Database, page size: Int) async throws -> [EventNID] {
        var found: [EventNID] = []
        var place = Database.OrderedPlace(depth: .max, position: .max)
        while true {
            let from = place
            let page = try await database.read { reader in
                try await database.events(
                    try await database.timeline(of: RoomNID(1), from: from, backwards: true, limit: size, reader),
                    reader)
            }
            guard let last = page.last else { return found }
            found += page.map(\.nid)
            place = Database.OrderedPlace(depth: last.orderDepth, position: last.position! - 1)
        }
    }

    @Test("what is fetched to fill a gap stands right before the event behind it, however often more is fetched")
    func filling() async throws {
        let test = try await TestDatabase()
        let database = test.database
        var expected: [EventNID] = []
        for depth in 1...6 {
            let nid = try await database.newEventNumbers(1)
            var write = Write()
            let position = write.takePosition()
            write.insert(event(nid, depth: Int64(depth), position: nil), position: position)
            if depth == 4 { write.put(Gap(room: RoomNID(1), before: nid, missing: [EventID(unchecked: "$lost")])) }
            try await database.write(write)
            expected.append(nid)
            // Something else of the server takes positions as well.
            var other = Write()
            for _ in 0..<depth % 3 { _ = other.takePosition() }
            other.topics = [.user(UserNID(1))]
            try await database.write(other)
        }
        let behind = try #require(try await database.events([expected[3]]).first)
        let all = try await database.events(expected)
        let gaps = try await database.read { try await database.gaps(before: all, $0) }
        #expect(gaps.map(\.before) == [behind.nid] && gaps[0].missing == [EventID(unchecked: "$lost")])
        // Two fetches, each of three events and each older than the one before.
        for round in 0..<2 {
            let first = try await database.newBackfillPositions(3)
            let nids = try await database.newEventNumbers(3).rawValue
            var write = Write()
            for offset in 0..<3 {
                let nid = EventNID(nids + Int64(offset))
                write.insert(
                    event(nid, depth: behind.orderDepth, position: nil), position: .integer(first - Int64(offset)))
                expected.insert(nid, at: 3)
            }
            if round == 1 { write.closeGap(before: behind.nid, in: RoomNID(1)) }
            try await database.write(write)
        }
        for size in [1, 2, 4, 50] { #expect(try await backwards(database, page: size) == expected.reversed()) }
        #expect(try await database.read { try await database.gaps(before: all, $0) }.isEmpty)
        // What was fetched is history, and no news.
        let upTo = database.committedPosition
        let news = try await database.read {
            try await database.newestEvents(in: RoomNID(1), after: 0, upTo: upTo, limit: 50, $0)
        }
        #expect(Set(news).isDisjoint(with: expected[3..<9]))
        // A position stands where the newest live event up to it does, also one that something else has taken.
        let live = try await database.events(expected).compactMap { event in
            event.position.flatMap { $0 > 0 ? Database.OrderedPlace(depth: event.orderDepth, position: $0) : nil }
        }
        for position in 0...(upTo + 2) {
            let place = try await database.read { try await database.place(upTo: position, in: RoomNID(1), $0) }
            let before = Database.OrderedPlace(depth: try #require(live.min()).depth, position: 0)
            #expect(place == live.filter { $0.position <= position }.max() ?? before, "position \(position)")
        }
        #expect(try await database.read { try await database.place(upTo: upTo, in: RoomNID(2), $0) } == nil)
        await test.close()
    }
}
