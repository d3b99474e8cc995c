import Logging
import RoostTestSupport
import Testing

@testable import Database

@Suite("State trees", .onEachEngine)
struct StateTreeTests {
    /// A database with one tree that grows by random changes, beside a dictionary for each of its states.
    private struct Model {
        var states: [(StateNID, [StateKeyNID: EventNID])] = [(StateNID(0), [:])]
        var nextRow: Int64 = 1
        var rows: [(number: Int64, bytes: [UInt8])] = []
    }

    private let room = RoomNID(7)

    private func grow(
        _ database: Database, _ generator: inout SeededGenerator, steps: Int, keys: Int64
    ) async throws -> Model {
        var model = Model()
        for step in 1...steps {
            let (base, content) = model.states.randomElement(using: &generator)!
            var changes: [StateKeyNID: EventNID?] = [:]
            for _ in 0..<Int.random(in: 1...[1, 1, 3, 60].randomElement(using: &generator)!, using: &generator) {
                let key = StateKeyNID(Int64.random(in: 1...keys, using: &generator))
                let isRemoval = Int.random(in: 0..<5, using: &generator) == 0
                changes[key] = .some(isRemoval ? nil : EventNID(Int64(step) * 1_000 + Int64(changes.count)))
            }
            let (planned, nextRow) = (changes, model.nextRow)
            let change = try await database.read { reader in
                var tree = StateTree(rows: database.stateRows, room: self.room)
                return try await tree.change(planned, in: base, nextRow: nextRow, reader)
            }
            var write = Write()
            write.insert(change, room: room)
            try await database.write(write)
            var after = content
            for (key, event) in changes { after[key] = event }
            model.states.append((change.state, after))
            model.rows += change.rows
            model.nextRow += Int64(change.rows.count)
        }
        return model
    }

    @Test("hold what a dictionary holds, whatever was changed", arguments: [1, 2, 3, 4] as [UInt64])
    func contents(seed: UInt64) async throws {
        let database = try await TestDatabase()
        var generator = SeededGenerator(seed: seed)
        let model = try await grow(database.database, &generator, steps: 120, keys: [20, 200, 5_000][Int(seed % 3)])
        let probes = (0..<20).map { _ in StateKeyNID(Int64.random(in: 1...5_000, using: &generator)) }
        try await database.database.read { reader in
            let tree = StateTree(rows: StateRows(), room: self.room)
            for (state, content) in model.states {
                let entries = try await tree.entries(in: state, reader)
                #expect(Dictionary(uniqueKeysWithValues: entries.map { ($0.key, $0.event) }) == content, "seed \(seed)")
                for probe in probes + content.keys.prefix(20) {
                    #expect(try await tree.event(for: probe, in: state, reader) == content[probe], "seed \(seed)")
                }
            }
        }
        await database.close()
    }

    @Test("tell exactly where two states differ", arguments: [5, 6, 7] as [UInt64])
    func differences(seed: UInt64) async throws {
        let database = try await TestDatabase()
        var generator = SeededGenerator(seed: seed)
        let model = try await grow(database.database, &generator, steps: 80, keys: 300)
        let pairs = (0..<200).map { _ in
            (model.states.randomElement(using: &generator)!, model.states.randomElement(using: &generator)!)
        }
        try await database.database.read { reader in
            let tree = StateTree(rows: StateRows(), room: self.room)
            for (old, new) in pairs {
                let found = try await tree.differences(from: old.0, to: new.0, reader)
                var expected: [StateKeyNID: [EventNID?]] = [:]
                for key in Set(old.1.keys).union(new.1.keys) where old.1[key] != new.1[key] {
                    expected[key] = [old.1[key], new.1[key]]
                }
                #expect(found.count == expected.count, "seed \(seed)")
                for difference in found {
                    #expect(expected[difference.key] == [difference.old, difference.new], "seed \(seed)")
                }
            }
        }
        await database.close()
    }

    @Test("a change in a large room writes less than a kilobyte and reads few rows")
    func costOfChange() async throws {
        let database = try await TestDatabase()
        let room = room
        let change = try await database.database.read { reader in
            var tree = StateTree(rows: database.database.stateRows, room: room)
            let members = Dictionary(
                uniqueKeysWithValues: (1...100_000).map { (StateKeyNID($0), Optional(EventNID($0 + 1_000_000))) })
            return try await tree.change(members, in: StateNID(0), nextRow: 1, reader)
        }
        var write = Write()
        write.insert(change, room: room)
        try await database.database.write(write)
        let total = try await database.database.read { reader in
            var sum = 0
            for key in stride(from: 1, to: 100_000, by: 1_000) {
                var tree = StateTree(rows: database.database.stateRows, room: room)
                let one = try await tree.change(
                    [StateKeyNID(Int64(key)): EventNID(Int64(key) + 5_000_000)], in: change.state,
                    nextRow: Int64(change.rows.count) + 1, reader)
                #expect(one.rows.count == 1)
                sum += one.rows[0].bytes.count
            }
            return sum
        }
        #expect(total / 100 < 1_000, "\(total / 100) bytes a change")
        await database.close()
    }

    @Test("setting what is set already, or removing what isn't there, changes nothing")
    func idleChanges() async throws {
        let database = try await TestDatabase()
        let room = room
        try await database.database.read { reader in
            var tree = StateTree(rows: StateRows(), room: room)
            let first = try await tree.change([StateKeyNID(1): EventNID(1)], in: StateNID(0), nextRow: 1, reader)
            let again = try await tree.change([StateKeyNID(1): EventNID(1)], in: first.state, nextRow: 2, reader)
            #expect(again.state == first.state && again.rows.isEmpty)
            let removed = try await tree.change([StateKeyNID(9): nil], in: first.state, nextRow: 2, reader)
            #expect(removed.state == first.state && removed.rows.isEmpty)
            let emptied = try await tree.change([StateKeyNID(1): nil], in: first.state, nextRow: 2, reader)
            #expect(try await tree.entries(in: emptied.state, reader).isEmpty)
        }
        await database.close()
    }

    @Test("rows of foreign bytes are refused, never trusted")
    func damagedRows() {
        var generator = SeededGenerator(seed: 11)
        for _ in 0..<20_000 {
            let bytes = (0..<Int.random(in: 0..<40, using: &generator)).map { _ in
                UInt8.random(in: .min ... .max, using: &generator)
            }
            // Either nodes come of it or an error; never a trap.
            _ = try? StateRow(bytes: bytes)
        }
        #expect(throws: DatabaseError.self) { try StateRow(bytes: [0x80]) }
        #expect(throws: DatabaseError.self) { try StateRow(bytes: [0x04, 0x01]) }
    }
}
