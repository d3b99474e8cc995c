import MatrixCore
import RoostTestSupport
import Synchronization
import Testing

@testable import Database

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

@Suite("Writing", .onEachEngine)
struct WritingTests {
    static let insert = Statement("INSERT INTO settings (name, value) VALUES ($1, $2)")
    static let insertAtPosition = Statement(
        "INSERT INTO account_data (user_nid, room_nid, type, content, position) VALUES ($1, 0, $2, $3, $4)")
    static let positions = Statement("SELECT position FROM account_data ORDER BY position")
    static let update = Statement("UPDATE settings SET value = $2 WHERE name = $1")

    @Test("of receipts in threads the newest ones are kept, and those of no thread and of the main timeline always")
    func threadedReceipts() async throws {
        let test = try await TestDatabase()
        let database = test.database
        func put(_ thread: String, of user: Int64 = 1, type: String = "m.read") async throws {
            var write = Write()
            write.putReceipt(
                in: RoomNID(1), of: UserNID(user), type: type, thread: thread, event: EventID(unchecked: "$e"), at: 1,
                threads: 3)
            try await database.write(write)
        }
        for thread in ["", "main", "$1", "$2", "$3"] { try await put(thread) }
        try await put("$1", of: 2)
        try await put("$1", type: "m.read.private")
        for thread in ["$4", "$5", "main"] { try await put(thread) }
        let kept = try await database.read { try await database.receipts(in: RoomNID(1), of: UserNID(1), $0) }
        #expect(Set(kept.filter { $0.type == "m.read" }.map(\.thread)) == ["", "main", "$3", "$4", "$5"])
        #expect(kept.count == 6)
        #expect(try await database.read { try await database.receipts(in: RoomNID(1), of: UserNID(2), $0) }.count == 1)
        await test.close()
    }

    @Test("a write that contradicts the data fails alone; those in the same transaction with it succeed")
    func failingAlone() async throws {
        let test = try await TestDatabase()
        var first = Write()
        first.run(Self.insert, .text("taken"), .blob([1]))
        try await test.database.write(first)
        let database = test.database
        let outcomes = await withTaskGroup(of: (Int, Bool).self) { group in
            for number in 0..<100 {
                group.addTask {
                    var write = Write()
                    write.run(Self.insert, .text("before \(number)"), .blob([1]))
                    if number % 3 == 0 { write.run(Self.insert, .text("taken"), .blob([2])) }
                    if number % 3 == 1 {
                        write.expect(1, otherwise: "it is there", Self.update, .text("nobody"), .blob([]))
                    }
                    do {
                        try await database.write(write)
                        return (number, true)
                    } catch DatabaseError.constraint where number % 3 == 0 {
                        return (number, false)
                    } catch DatabaseError.conflict where number % 3 == 1 {
                        return (number, false)
                    } catch {
                        Issue.record(error)
                        return (number, false)
                    }
                }
            }
            return await group.reduce(into: [Int: Bool]()) { $0[$1.0] = $1.1 }
        }
        for number in 0..<100 {
            #expect(outcomes[number] == (number % 3 == 2))
            // Nothing of a write that failed is there.
            #expect(try await database.setting("before \(number)") == (number % 3 == 2 ? [1] : nil))
        }
        #expect(try await database.setting("taken") == [1])
        await test.close()
    }

    @Test("many executions of a statement are as each by itself, in their order, though a server makes them one")
    func manyAsOne() async throws {
        let test = try await TestDatabase()
        let insert = Statement(
            """
            INSERT INTO devices (user_nid, device_id, display_name, created_ts)
            SELECT $1, $2, $3, $4 WHERE $4 > 0 ON CONFLICT DO NOTHING
            """, isIndependent: true)
        let newest = Statement(
            "SELECT device_id, display_name, created_ts FROM devices WHERE user_nid = $1 ORDER BY created_ts DESC LIMIT $2"
        )
        func name(_ user: Int, _ device: Int) -> String? { user % 3 == 0 ? nil : "\(user) \(device)" }
        /// Text, which an engine may keep as bytes.
        func bytes(_ value: SQLValue) -> [UInt8] {
            switch value {
            case .text(let text): Array(text.utf8)
            case .blob(let bytes): bytes
            default: []
            }
        }
        var write = Write()
        let position = write.takePosition()
        for user in 1...30 {
            for device in 0..<3 {
                // One of them doesn't want to be.
                let time: Int64 = user == 30 && device == 0 ? 0 : 100 + Int64(device)
                write.run(
                    insert, .integer(Int64(user)), .text("D\(device)"), .optional(name(user, device)), .integer(time))
            }
        }
        // All but that one are there already.
        for user in 1...30 { write.run(insert, .integer(Int64(user)), .text("D0"), .null, position) }
        for user in 1...30 { write.run(insert, .integer(Int64(user)), .text("D0"), .text("again"), position) }
        for number in 0..<3 { write.run(insert, .integer(100), .text("\(number)"), .null, .integer(1)) }
        try await test.database.write(write)
        let users = Array((0...31).reversed())
        let found = try await test.database.read { reader in
            try await reader.queryEach(newest, users.map { [.integer(Int64($0)), .integer(2)] }) { index, row in
                "\(users[index]) \(row.text(0)) \(row.isNull(1) ? "-" : row.text(1)) \(row.integer(2))"
            }
        }
        var expected: [String] = []
        for user in (1...30).reversed() {
            for device in [2, 1] { expected.append("\(user) D\(device) \(name(user, device) ?? "-") \(100 + device)") }
        }
        #expect(found == expected)
        let counts = Statement("SELECT count(*), count(display_name) FROM devices")
        let all = try await test.database.read { reader in
            try await reader.query(counts, []) { "\($0.integer(0)) \($0.integer(1))" }
        }
        #expect(all == ["\(30 * 3 + 3) \(20 * 3)"])
        // What is deleted comes back for each by itself; two have nothing.
        let last = Statement(
            """
            DELETE FROM devices WHERE user_nid = $1 AND device_id =
            (SELECT device_id FROM devices WHERE user_nid = $1 ORDER BY created_ts DESC LIMIT 1)
            RETURNING device_id, created_ts
            """, isIndependent: true)
        var end = Write()
        end.run(insert, .integer(200), .text("D"), .null, .integer(1))
        let places = users.map { end.returning(last, .integer(Int64($0))) }
        let other = end.returning(last, .integer(200))
        let deleted = try await test.database.write(end).rows
        for (user, place) in zip(users, places) {
            let rows = deleted[place].map { row in "\(bytes(row[0])) \(row[1])" }
            #expect(rows == ((1...30).contains(user) ? ["\(Array("D2".utf8)) \(SQLValue.integer(102))"] : []))
        }
        #expect(deleted[other].map { bytes($0[0]) } == [Array("D".utf8)])
        let left = try await test.database.read { reader in
            try await reader.query(counts, []) { $0.integer(0) }
        }
        #expect(left == [30 * 2 + 3])
        // So does what is changed.
        let older = Statement(
            """
            UPDATE devices SET created_ts = created_ts + $2
            WHERE user_nid = $1 AND device_id =
                (SELECT device_id FROM devices WHERE user_nid = $1 ORDER BY created_ts LIMIT 1)
            RETURNING
                created_ts, device_id
            """, isIndependent: true)
        var changes = Write()
        let changed = users.map { changes.returning(older, .integer(Int64($0)), .integer(Int64($0) * 1_000)) }
        let rows = try await test.database.write(changes).rows
        // (The oldest device of user 30 has a position for its time.)
        for (user, place) in zip(users, changed) where user != 30 {
            let row = rows[place].map { row in "\(row[0]) \(bytes(row[1]))" }
            let time = SQLValue.integer(Int64(100 + user * 1_000))
            #expect(row == ((1...29).contains(user) ? ["\(time) \(Array("D0".utf8))"] : []))
        }
        await test.close()
    }

    @Test(
        "of many executions that must change a row each, one that doesn't lets the write fail, and nothing of it is there"
    )
    func manyExpectations() async throws {
        let test = try await TestDatabase()
        let drop = Statement("DELETE FROM settings WHERE name = $1", isIndependent: true)
        var fill = Write()
        for number in 0..<10 { fill.run(Self.insert, .text("\(number)"), .blob([])) }
        try await test.database.write(fill)
        func dropping(_ numbers: Range<Int>) -> Write {
            var write = Write()
            write.run(Self.insert, .text("other \(numbers)"), .blob([]))
            for number in numbers { write.expect(1, otherwise: "it is there", drop, .text("\(number)")) }
            return write
        }
        try await test.database.write(dropping(0..<5))
        for number in 0..<10 { #expect(try await test.database.setting("\(number)") == (number < 5 ? nil : [])) }
        for numbers in [4..<10, 5..<11] {
            await #expect(throws: DatabaseError.self) { try await test.database.write(dropping(numbers)) }
            #expect(try await test.database.setting("other \(numbers)") == nil)
        }
        for number in 5..<10 { #expect(try await test.database.setting("\(number)") == []) }
        await test.close()
    }

    @Test("positions are given in the order of commits, and never become visible late")
    func positionsInOrder() async throws {
        let test = try await TestDatabase()
        let database = test.database
        let seen = Mutex<[Int64]>([])
        test.engine.onCommit(CommitObserver { commit in seen.withLock { $0.append(commit.position) } })
        let reader = Task {
            // What is visible below the committed position never gets another row afterwards.
            var known: [Int64] = []
            while !Task.isCancelled {
                let upTo = database.committedPosition
                let visible = try await database.read { reader in
                    try await reader.query(Self.positions, []) { $0.integer(0) }
                }.filter { $0 <= upTo }
                #expect(Array(visible.prefix(known.count)) == known)
                known = visible
                await Task.yield()
            }
            return known.count
        }
        await withTaskGroup(of: Void.self) { group in
            for number in 0..<300 {
                group.addTask {
                    var write = Write()
                    for part in 0..<(number % 4) {
                        let position = write.takePosition()
                        write.run(Self.insertAtPosition, .integer(Int64(number)), .text("\(part)"), .blob([]), position)
                    }
                    write.topics.append(.user(UserNID(1)))
                    do {
                        let first = try await database.write(write).firstPosition
                        #expect(database.committedPosition >= first + Int64(write.positions) - 1)
                    } catch { Issue.record(error) }
                }
            }
        }
        reader.cancel()
        _ = try await reader.value
        let all = try await database.read { try await $0.query(Self.positions, []) { $0.integer(0) } }
        #expect(all.count == 450 && Set(all).count == 450)
        let told = seen.withLock { $0 }
        #expect(told == told.sorted())
        await test.close()
    }

    @Test("positions go on above all that were given out before, also after a restart")
    func positionsAfterRestart() async throws {
        let directory = TemporaryDirectory()
        var last: Int64 = 0
        for _ in 0..<3 {
            let test = try await TestDatabase(in: directory)
            #expect(test.database.committedPosition >= last)
            var write = Write()
            let position = write.takePosition()
            write.run(Self.insertAtPosition, .integer(last), .text(""), .blob([]), position)
            let given = try await test.database.write(write).firstPosition
            #expect(given > last)
            last = given
            await test.close()
        }
    }

    @Test("numbers of events are given once, also after a restart")
    func eventNumbers() async throws {
        let directory = TemporaryDirectory()
        var given: Set<Int64> = []
        for _ in 0..<3 {
            let test = try await TestDatabase(in: directory)
            let database = test.database
            let taken = try await withThrowingTaskGroup(of: [Int64].self) { group in
                for count in [1, 3, 700, 2, 1_500, 1] {
                    group.addTask {
                        let first = try await database.newEventNumbers(count).rawValue
                        return Array(first..<first + Int64(count))
                    }
                }
                return try await group.reduce(into: []) { $0 += $1 }
            }
            #expect(given.isDisjoint(with: taken) && Set(taken).count == taken.count)
            given.formUnion(taken)
            await test.close()
        }
    }

    @Test("the log of SQLite is copied into the file and begun anew while one writes")
    func shortLog() async throws {
        let directory = TemporaryDirectory()
        var options = SQLiteEngine.Options()
        options.checkpointPages = 20
        options.isDurable = false
        let path = "\(directory.path)/log.db"
        let engine = try await SQLiteEngine(path: path, options: options, logger: quiet)
        let database = Database(engine: engine)
        // Each writes more than a page.
        let text = String(repeating: "x", count: 5_000)
        for number in 0..<2_000 {
            var write = Write()
            write.run(Self.insertAtPosition, .integer(Int64(number)), .text(text), .blob([]), write.takePosition())
            try await database.write(write)
        }
        func size(_ file: String) -> Int {
            var status = stat()
            return stat(file, &status) == 0 ? Int(status.st_size) : 0
        }
        #expect(size(path) > 4_096_000)
        #expect(size(path + "-wal") < 4_096_000)
        await database.close()
    }

    @Test("who reads for long holds up no writer of SQLite, however long the log grows meanwhile")
    func longReader() async throws {
        var options = SQLiteEngine.Options()
        options.checkpointPages = 5
        options.isDurable = false
        let directory = TemporaryDirectory()
        let engine = try await SQLiteEngine(path: "\(directory.path)/log.db", options: options, logger: quiet)
        let database = Database(engine: engine)
        try await database.read { reader in
            #expect(try await reader.query(Self.positions, []) { $0.integer(0) }.isEmpty)
            for number in 0..<300 {
                var write = Write()
                write.run(Self.insertAtPosition, .integer(Int64(number)), .text("x"), .blob([]), write.takePosition())
                try await database.write(write)
            }
        }
        #expect(try await database.read { try await $0.query(Self.positions, []) { $0.integer(0) } }.count == 300)
        await database.close()
    }

    @Test("a closed database says so")
    func closed() async throws {
        let test = try await TestDatabase()
        await test.close()
        await #expect(throws: DatabaseError.self) { try await test.database.write(Write()) }
    }

    @Test("a database of a newer schema is refused, and the message says what to do")
    func newerSchema() async throws {
        let directory = TemporaryDirectory()
        let test = try await TestDatabase(in: directory)
        var write = Write()
        write.run(Statement("UPDATE schema_version SET version = 99, oldest_binary = 99"))
        try await test.database.write(write)
        await test.close()
        do {
            _ = try await TestDatabase(in: directory)
            Issue.record("it was opened")
        } catch let error as DatabaseError {
            #expect(error.description.contains("newer Roost"))
        }
    }

    @Test("identifiers that are equal as text but not as bytes are different ones")
    func identifiersAreBytes() async throws {
        let test = try await TestDatabase()
        let composed = EventType("caf\u{e9}"), decomposed = EventType("cafe\u{301}")
        let numbers = try await test.database.numbers(ofTypes: [composed, decomposed, composed])
        #expect(numbers.count == 2)
        let back = try await test.database.types(Array(numbers.values))
        for (type, number) in numbers { #expect(back[number] == type) }
        await test.close()
    }
}
