import MatrixCore
import RoostTestSupport
import Testing

@testable import Database

@Suite("Auth chains", .onEachEngine)
struct AuthChainTests {
    /// A random graph of state events in the database, and what authorises each.
    private func graph(
        _ database: Database, _ generator: inout SeededGenerator, count: Int
    ) async throws -> [EventNID: [EventNID]] {
        var graph: [EventNID: [EventNID]] = [:]
        var order: [EventNID] = []
        while order.count < count {
            // Several events of one write refer to each other, too.
            var plan: [(EventNID, [EventNID])] = []
            for _ in 0..<Int.random(in: 1...5, using: &generator) {
                let nid = try await database.newEventNumbers(1)
                let recent = order.suffix(Int.random(in: 1...40, using: &generator))
                let auth = Set(
                    (0..<Int.random(in: 0...4, using: &generator)).compactMap { _ in
                        recent.randomElement(using: &generator)
                    })
                graph[nid] = auth.sorted()
                order.append(nid)
                plan.append((nid, auth.sorted()))
            }
            let planned = plan
            try await add(planned, to: database)
        }
        return graph
    }

    /// Writes events that refer to one another or to what is there.
    private func add(_ events: [(EventNID, [EventNID])], to database: Database) async throws {
        var write = try await database.read { reader in
            var chains = ChainDraft()
            var write = Write()
            for (nid, auth) in events {
                let place = try await chains.place(nid, authorisedBy: auth, replacing: auth.last, database, reader)
                let event = StoredEvent(
                    nid: nid, eventID: EventID(unchecked: "$\(nid)"), room: RoomNID(1), position: nil, orderDepth: 0,
                    type: EventTypeNID(1), sender: UserNID(1), stateKey: nil, stateBefore: nil, flags: .outlier,
                    originServerTS: 0, redactedBy: nil, replaces: nil, chain: place, previous: [], auth: auth,
                    transactionKey: nil, cuts: [], json: [])
                write.insert(event, position: .null)
                database.storedEvents.insert(event)
            }
            write.insert(chains)
            return write
        }
        write.topics = []
        try await database.write(write)
    }

    private func naiveChain(_ events: [EventNID], _ graph: [EventNID: [EventNID]]) -> Set<EventNID> {
        var found: Set<EventNID> = []
        var todo = events.flatMap { graph[$0]! }
        while let next = todo.popLast() { if found.insert(next).inserted { todo += graph[next]! } }
        return found
    }

    @Test(
        "chains and their differences are those of a walk over the whole graph", arguments: [1, 2, 3, 4, 5] as [UInt64])
    func againstWalk(seed: UInt64) async throws {
        let test = try await TestDatabase()
        var generator = SeededGenerator(seed: seed)
        let graph = try await graph(test.database, &generator, count: 250)
        for _ in 0..<40 {
            let sets = (0..<Int.random(in: 1...4, using: &generator)).map { _ in
                (0..<Int.random(in: 1...5, using: &generator)).map { _ in
                    graph.keys.sorted().randomElement(using: &generator)!
                }
            }
            let expected = sets.map { naiveChain($0, graph) }
            let database = test.database
            let (chain, difference) = try await database.read { reader in
                (
                    try await database.authChain(of: sets[0], reader),
                    try await database.authDifference(of: sets, reader)
                )
            }
            #expect(chain == expected[0], "seed \(seed)")
            let whole = zip(sets, expected).map { $1.union($0) }
            let union = whole.reduce(into: Set()) { $0.formUnion($1) }
            let shared = whole.dropFirst().reduce(whole[0]) { $0.intersection($1) }
            #expect(difference == union.subtracting(shared), "seed \(seed)")
        }
        await test.close()
    }

    /// Counts how often what it reads with is asked.
    private final class CountingReader: Reader {
        let reader: any Reader
        var sets = 0

        init(_ reader: any Reader) { self.reader = reader }

        func run(
            _ statement: Statement, _ sets: [[SQLValue]], _ take: (Int, any Row) throws -> Void
        ) async throws {
            self.sets += sets.count
            try await reader.run(statement, sets, take)
        }
    }

    @Test("places behind what authorises every member are looked for once")
    func takenPlaces() async throws {
        let test = try await TestDatabase()
        let database = test.database
        let first = try await database.newEventNumbers(4).rawValue
        let numbers = (first..<first + 4).map { EventNID($0) }
        // The second stands behind the first, in the only place that there is.
        try await add([(numbers[0], []), (numbers[1], [numbers[0]])], to: database)
        var asked: [Int] = []
        for nid in numbers.dropFirst(2) {
            asked.append(
                try await database.read { reader in
                    let counting = CountingReader(reader)
                    var chains = ChainDraft()
                    let place = try await chains.place(
                        nid, authorisedBy: [numbers[0]], replacing: nil, database, counting)
                    #expect(place.place == 1)
                    return counting.sets
                })
        }
        #expect(asked == [1, 0])
        await test.close()
    }
}
