import RoostTestSupport
import Synchronization
import Testing

@testable import Database

@Suite("Several nodes on one PostgreSQL", .enabled(if: EngineKind.cluster != nil, "ROOST_TEST_POSTGRES is not set"))
struct PostgreSQLTests {
    /// A database and the engines of some nodes on it.
    private struct Nodes {
        let url: String
        let engines: [PostgreSQLEngine]
        let databases: [Database]
        /// What each node was told.
        let told: [Told]
    }

    private final class Acknowledged: Sendable {
        let numbers = Mutex<Set<Int>>([])
    }

    private final class Told: Sendable {
        let commits = Mutex<[Commit]>([])
    }

    private func with(
        _ count: Int, lockMilliseconds: Int = 8_000, _ body: @escaping @Sendable (Nodes) async throws -> Void
    ) async throws {
        try await EngineKind.onPostgreSQL {
            let directory = TemporaryDirectory()
            let url = try await EngineKind.url(of: directory)
            // All at once: they find no tables, and one of them makes them.
            let engines = try await withThrowingTaskGroup(of: PostgreSQLEngine.self) { group in
                for _ in 0..<count {
                    group.addTask {
                        var limits = PostgreSQLEngine.Limits()
                        limits.readers = [3, 2, 1]
                        limits.lockMilliseconds = lockMilliseconds
                        return try await PostgreSQLEngine(url: url, limits: limits, logger: quiet)
                    }
                }
                return try await group.reduce(into: []) { $0.append($1) }
            }
            let told = engines.map { engine in
                let told = Told()
                engine.onCommit(CommitObserver { commit in told.commits.withLock { $0.append(commit) } })
                return told
            }
            try await body(
                Nodes(url: url, engines: engines, databases: engines.map { Database(engine: $0) }, told: told))
            for engine in engines { await engine.close() }
        }
    }

    private static func entry(_ number: Int) -> Write {
        var write = Write()
        let position = write.takePosition()
        write.run(WritingTests.insertAtPosition, .integer(Int64(number)), .text("t"), .blob([]), position)
        write.topics.append(.user(UserNID(Int64(number))))
        return write
    }

    @Test("what one node commits, all are told once and in order, and their reads then see it")
    func toldEverywhere() async throws {
        try await with(3) { nodes in
            try await withThrowingTaskGroup(of: Void.self) { group in
                for (place, database) in nodes.databases.enumerated() {
                    for number in 0..<100 {
                        group.addTask {
                            let write = Self.entry(place * 1_000 + number)
                            let position = try await database.write(write).firstPosition
                            #expect(database.committedPosition >= position)
                        }
                    }
                    group.addTask {
                        // What is visible up to the committed position never gets another row afterwards.
                        var known: [Int64] = []
                        for _ in 0..<30 {
                            let upTo = database.committedPosition
                            let visible = try await database.read { reader in
                                try await reader.query(WritingTests.positions, []) { $0.integer(0) }
                            }.filter { $0 <= upTo }
                            #expect(Array(visible.prefix(known.count)) == known)
                            known = visible
                        }
                    }
                }
                try await group.waitForAll()
            }
            let last = nodes.databases.map(\.committedPosition).max()!
            for (database, told) in zip(nodes.databases, nodes.told) {
                #expect(try await database.reach(last))
                let commits = told.commits.withLock { $0 }
                #expect(commits.map(\.position) == commits.map(\.position).sorted())
                let users = commits.flatMap(\.topics)
                #expect(users.count == 300 && Set(users).count == 300)
                #expect(commits.filter { !$0.isElsewhere }.flatMap(\.topics).count == 100)
            }
        }
    }

    @Test(
        "a write that takes no position reaches the other nodes too; a position that nobody gave out is known as such")
    func withoutPosition() async throws {
        try await with(2) { nodes in
            var write = Write()
            write.run(WritingTests.insert, .text("name"), .blob([1]))
            write.topics.append(.memberships(UserNID(7)))
            try await nodes.databases[0].write(write)
            #expect(try await nodes.databases[1].reach(nodes.databases[0].committedPosition))
            #expect(nodes.told[1].commits.withLock { $0 }.flatMap(\.topics) == [.memberships(UserNID(7))])
            let isReached = try await nodes.databases[1].reach(nodes.databases[0].committedPosition + 1)
            #expect(!isReached)
        }
    }

    /// Waits for what comes by itself, for a minute at most.
    private static func until(_ condition: () -> Bool) async throws {
        for _ in 0..<6_000 where !condition() { try await Task.sleep(for: .milliseconds(10)) }
        try #require(condition())
    }

    /// Waits until a node knows that it is alone. On a slow machine it may doubt it again at once.
    @discardableResult
    private static func alone(_ engine: PostgreSQLEngine) async throws -> Int {
        var solitude: Int?
        try await until {
            solitude = engine.solitude
            return solitude != nil
        }
        return try #require(solitude)
    }

    @Test("a node knows when it is alone; one that comes waits until the others know that they aren't")
    func solitude() async throws {
        try await with(1) { nodes in
            let first = nodes.engines[0]
            let before = try await Self.alone(first)
            // Nobody has to wait for whoever isn't there.
            try await first.nobodyElseRemembers()

            let second = try await PostgreSQLEngine(url: nodes.url, logger: quiet)
            try await second.nobodyElseRemembers()
            #expect(first.solitude == nil && second.solitude == nil)
            try await first.nobodyElseRemembers()
            await second.close()
            #expect(try await Self.alone(first) != before)
        }
    }

    @Test("a node that others don't see trusts nothing")
    func unseen() async throws {
        try await with(1) { nodes in
            let first = nodes.engines[0]
            let before = try await Self.alone(first)
            try await PostgreSQLAdministration.run(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
                at: nodes.url)
            try await Self.until { first.solitude != before }
            // It was out of sight: what it says is over is over everywhere only when the others have had time to see it.
            try await first.nobodyElseRemembers()
            #expect(try await Self.alone(first) != before)
        }
    }

    /// The limit is for a read that never ends.
    @Test("a read whose connection breaks between two questions fails, and others go on", .timeLimit(.minutes(10)))
    func brokenBetweenQuestions() async throws {
        try await with(1) { nodes in
            let database = nodes.databases[0], url = nodes.url
            let one = Statement("SELECT 1::bigint WHERE $1 = 1")
            for _ in 0..<3 {
                await #expect(throws: DatabaseError.self) {
                    try await database.read { reader in
                        _ = try await reader.first(one, [.integer(1)]) { $0.integer(0) }
                        try await PostgreSQLAdministration.run(
                            """
                            SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                            WHERE datname = current_database() AND pid <> pg_backend_pid()
                            """, at: url)
                        for _ in 0..<100 {
                            _ = try await reader.first(one, [.integer(1)]) { $0.integer(0) }
                            try await Task.sleep(for: .milliseconds(10))
                        }
                    }
                }
            }
            try await Self.eventually {
                let answer = try await database.read { try await $0.first(one, [.integer(1)]) { $0.integer(0) } }
                #expect(answer == 1)
            }
        }
    }

    @Test("a value that is too large for an index fails alone; those in the same transaction with it succeed")
    func tooLargeForIndex() async throws {
        try await with(1) { nodes in
            let database = nodes.databases[0]
            var generator = SeededGenerator(seed: 1)
            let large = String(
                (0..<20_000).map { _ in "0123456789abcdefghijklmnopqrstuvwxyz".randomElement(using: &generator)! })
            let outcomes = await withTaskGroup(of: (Int, Bool).self) { group in
                for number in 0..<200 {
                    group.addTask {
                        var write = Write()
                        write.putAccountData(
                            of: UserNID(Int64(number)), room: nil, type: number % 10 == 5 ? large : "small", content: []
                        )
                        do {
                            try await database.write(write)
                            return (number, true)
                        } catch { return (number, false) }
                    }
                }
                return await group.reduce(into: [:]) { $0[$1.0] = $1.1 }
            }
            for number in 0..<200 { #expect(outcomes[number] == (number % 10 != 5)) }
        }
    }

    @Test("what was committed while a node did not listen, it is told later")
    func lostListener() async throws {
        try await with(2) { nodes in
            _ = try await nodes.databases[0].write(Self.entry(1))
            #expect(try await nodes.databases[1].reach(nodes.databases[0].committedPosition))
            try await PostgreSQLAdministration.run(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
                at: nodes.url)
            try await Self.eventually { _ = try await nodes.databases[0].write(Self.entry(3)) }
            var last: Int64 = 0
            try await Self.eventually {
                last = try await nodes.databases[0].read {
                    try await $0.first(Statement("SELECT max(position) FROM changes"), []) { $0.integer(0) }
                }!
            }
            for _ in 0..<200 where nodes.databases[1].committedPosition < last {
                try await Task.sleep(for: .milliseconds(20))
            }
            #expect(nodes.databases[1].committedPosition >= last)
            let topics = nodes.told[1].commits.withLock { $0 }.flatMap(\.topics)
            #expect(topics.contains(.user(UserNID(3))) && Set(topics).count == topics.count)
        }
    }

    /// Does something that may find its connection cut, again until it finds one that isn't. What took effect although its
    /// answer was lost contradicts itself the second time.
    private static func eventually(_ body: () async throws -> Void) async throws {
        for _ in 0..<20 {
            do { return try await body() } catch DatabaseError.unavailable { continue } catch DatabaseError.constraint {
                return
            }
        }
        try await body()
    }

    @Test("a connection cut in mid-transaction: the write fails or is whole, and the next succeeds")
    func cutOff() async throws {
        try await with(1) { nodes in
            let (database, url) = (nodes.databases[0], nodes.url)
            let acknowledged = Acknowledged()
            try await withThrowingTaskGroup(of: Void.self) { group in
                for number in 0..<60 {
                    group.addTask {
                        do {
                            _ = try await database.write(Self.entry(number))
                            acknowledged.numbers.withLock { _ = $0.insert(number) }
                        } catch DatabaseError.unavailable {}
                    }
                    if number % 40 == 20 {
                        group.addTask {
                            // It may be cut off itself, by the next one.
                            _ = try? await PostgreSQLAdministration.run(
                                """
                                SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                                WHERE datname = current_database() AND pid <> pg_backend_pid()
                                """, at: url)
                        }
                    }
                }
                try await group.waitForAll()
            }
            try await Self.eventually { _ = try await database.write(Self.entry(1_000)) }
            var stored: Set<Int> = []
            try await Self.eventually {
                stored = Set(
                    try await database.read { reader in
                        try await reader.query(Statement("SELECT user_nid FROM account_data"), []) {
                            Int($0.integer(0))
                        }
                    })
            }
            #expect(stored.isSuperset(of: acknowledged.numbers.withLock { $0 }) && stored.contains(1_000))
        }
    }

    @Test("a session that sits on the lock over positions: writes fail in bounded time, and go on when it is gone")
    func stalledLockHolder() async throws {
        try await with(1, lockMilliseconds: 300) { nodes in
            let (database, url) = (nodes.databases[0], nodes.url)
            _ = try await database.write(Self.entry(1))
            // Held until this test ends the session, however slow the machine is.
            async let holder = PostgreSQLAdministration.run(
                "SELECT set_config('statement_timeout', '0', false)", "BEGIN",
                "SELECT pg_advisory_xact_lock(\(PostgreSQLSchema.positionLock))", "SELECT pg_sleep(300)", at: url)
            let held = """
                FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid WHERE l.locktype = 'advisory' AND l.granted
                AND a.datname = current_database() AND a.query LIKE '%pg_sleep%' AND a.pid <> pg_backend_pid()
                """
            while try await PostgreSQLAdministration.run("SELECT l.pid \(held)", at: url).isEmpty { await Task.yield() }
            await #expect(throws: DatabaseError.self) { _ = try await database.write(Self.entry(2)) }
            // Reads, and writes that take no position, don't wait for it.
            #expect(try await database.lease("work", holder: "a", now: 1, duration: 10) != nil)
            #expect(await database.answers())
            try await PostgreSQLAdministration.run("SELECT pg_terminate_backend(l.pid) \(held)", at: url)
            do {
                _ = try await holder
                Issue.record("the session was not ended")
            } catch {
                // Ended, as it should be.
            }
            _ = try await database.write(Self.entry(3))
        }
    }

    @Test("a lease of a node that is gone goes to another, and what the first still sends changes nothing")
    func leases() async throws {
        try await with(2) { nodes in
            let (one, other) = (nodes.databases[0], nodes.databases[1])
            let first = try #require(try await one.lease("work", holder: "one", now: 1_000, duration: 500))
            #expect(try await other.lease("work", holder: "other", now: 1_200, duration: 500) == nil)
            let second = try #require(try await other.lease("work", holder: "other", now: 1_500, duration: 500))
            #expect(second.token > first.token)
            var late = Write()
            late.require(first)
            late.run(WritingTests.insert, .text("late"), .blob([]))
            let write = late
            await #expect(throws: DatabaseError.self) { try await one.write(write) }
            #expect(try await other.setting("late") == nil)
        }
    }

    @Test("text with a NUL, and bytes that are no text, come back as they were")
    func anyBytes() async throws {
        try await with(1) { nodes in
            let name = "a\0b\\x41'\u{e9}"
            let (first, again) = (
                try await nodes.databases[0].setting(name, initial: [0, 255, 92]),
                try await nodes.databases[0].setting(name)
            )
            #expect(first == [0, 255, 92] && again == first)
        }
    }

    @Test("reads within reads get on, however many there are")
    func nestedReads() async throws {
        try await with(1) { nodes in
            let database = nodes.databases[0]
            try await withThrowingTaskGroup(of: Void.self) { group in
                for number in 0..<30 {
                    group.addTask {
                        // A busy machine may keep one waiting for too long; those that kept one another waiting would
                        // do so again each time.
                        for attempt in 1... {
                            do {
                                return try await database.read { reader in
                                    _ = try await reader.first(Statement("SELECT 1"), []) { $0.integer(0) }
                                    _ = try await database.numbers(ofTypes: [EventType("t\(number)")])
                                }
                            } catch DatabaseError.unavailable where attempt < 8 {}
                        }
                    }
                }
                try await group.waitForAll()
            }
        }
    }

    @Test("a copy as an SQLite file holds everything, and fills an empty database with it")
    func copyAndFill() async throws {
        try await with(1) { nodes in
            let database = nodes.databases[0]
            for number in 0..<1_200 where number % 3 == 0 { _ = try await database.write(Self.entry(number)) }
            _ = try await database.numbers(ofTypes: [EventType("a\0type")])
            let directory = TemporaryDirectory()
            try await nodes.engines[0].copy(to: "\(directory.path)/roost.db")
            #expect(try await nodes.engines[0].damage() == [])
            let url = try await EngineKind.url(of: directory)
            try await PostgreSQLEngine.fill(url: url, from: "\(directory.path)/roost.db")
            let engine = try await PostgreSQLEngine(url: url, logger: quiet)
            let filled = Database(engine: engine)
            let file = Database(engine: try await SQLiteEngine(path: "\(directory.path)/roost.db", logger: quiet))
            let rows = Statement("SELECT user_nid, position FROM account_data ORDER BY position")
            func content(_ database: Database) async throws -> [[Int64]] {
                try await database.read { try await $0.query(rows, []) { [$0.integer(0), $0.integer(1)] } }
            }
            let expected = try await content(database)
            #expect(expected.count == 400)
            #expect(try await content(file) == expected)
            #expect(try await content(filled) == expected)
            // Positions and numbers go on behind what was there.
            #expect(filled.committedPosition >= database.committedPosition)
            #expect(try await filled.write(Self.entry(5_000)).firstPosition > database.committedPosition)
            #expect(try await filled.numbers(ofTypes: [EventType("a\0type"), EventType("new")]).count == 2)
            await #expect(throws: DatabaseError.self) {
                try await PostgreSQLEngine.fill(url: url, from: "\(directory.path)/roost.db")
            }
            await filled.close()
            await file.close()
        }
    }
}
