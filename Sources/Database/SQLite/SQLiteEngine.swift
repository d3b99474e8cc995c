import Logging
import Synchronization

/// The embedded engine: one SQLite file with a write-ahead log.
///
/// - One thread writes. It puts up to fifty waiting writes into one transaction and syncs the disk once for all.
/// - One thread copies the log into the file when it has grown, so that no commit waits for that.
/// - Reads run on the caller's thread, each on a connection borrowed from a pool.
public final class SQLiteEngine: Engine {
    /// What of the engine's behaviour may be chosen.
    public struct Options: Sendable {
        /// Bytes of a page of a new database.
        public var pageSize = 4096
        /// Pages in the log from which on they are copied into the file.
        public var checkpointPages = 2_000
        /// A read that takes longer is ended; nil: reads take as long as they want.
        public var readLimitNanoseconds: UInt64? = 30_000_000_000
        /// Whether a commit is on the disk when it is answered. Without it a power cut loses the last ones: for databases that
        /// nobody needs afterwards.
        public var isDurable = true
        /// Whether writes are carried out where they are asked for, and not on the engine's thread with those of others: what
        /// happens then follows from what is asked alone, which simulations need.
        public var writesInPlace = false

        public init() {}
    }

    /// Writes that share a transaction at most.
    static let writesPerCommit = 50
    /// Positions that are reserved at once, so that giving one out costs no writing. What is left of a reservation at the
    /// end of the process is never used.
    static let positionsPerReservation: Int64 = 1_000

    private struct Pending: Sendable {
        let write: Write
        let continuation: CheckedContinuation<WriteResult, any Error>
    }

    private let path: String
    private let options: Options
    /// Connections that nobody reads with at the moment; nil once this is closed: who reads then does so with a connection of its own.
    private let readers: Mutex<[SQLiteConnection]?>
    private let writer: SQLiteWriter
    private let queue: WorkThread<Pending>
    /// Held while writing in place.
    private let inPlace = Mutex(false)
    private let checkpointer: SQLiteCheckpointer

    public init(path: String, options: Options = Options(), logger: Logger) async throws {
        self.path = path
        self.options = options
        let connection = try SQLiteConnection(path: path, mode: options.isDurable ? .gathering : .readWrite)
        try connection.execute("PRAGMA page_size = \(options.pageSize)")
        try connection.execute("PRAGMA journal_mode = WAL")
        try connection.execute("PRAGMA synchronous = \(options.isDurable ? "FULL" : "OFF")")
        try connection.execute("PRAGMA wal_autocheckpoint = 0")
        try connection.execute("PRAGMA journal_size_limit = \(2 * options.checkpointPages * options.pageSize)")
        try Migrations.carryOut(on: connection)
        let writer = try SQLiteWriter(connection: connection, logger: logger)
        self.writer = writer
        checkpointer = try SQLiteCheckpointer(
            path: path, pages: options.checkpointPages, isDurable: options.isDurable, logger: logger)
        checkpointer.watch(connection)
        readers = Mutex([])
        queue = WorkThread(most: Self.writesPerCommit) { pending in
            let outcomes = writer.commit(pending.map(\.write))
            for (one, outcome) in zip(pending, outcomes) { one.continuation.resume(with: outcome) }
        }
    }

    public var committedPosition: Int64 { writer.committedPosition.load(ordering: .acquiring) }

    public func onCommit(_ observer: CommitObserver) {
        writer.observers.withLock { $0.append(observer) }
    }

    /// One process has the file.
    public var isShared: Bool { false }

    public func reach(_ position: Int64) async throws -> Bool { position <= committedPosition }

    private static let reserved = Statement("SELECT next FROM counters WHERE name = 'position'")

    public func nextPosition() async throws -> Int64 {
        try await readOnce { try await $0.first(Self.reserved, []) { $0.integer(0) } ?? 1 }
    }

    public func write(_ write: Write) async throws -> WriteResult {
        if options.writesInPlace {
            return try inPlace.withLock { isClosed in
                if isClosed { throw DatabaseError.closed }
                return try writer.commit([write])[0].get()
            }
        }
        return try await withCheckedThrowingContinuation { continuation in
            if !queue.add(Pending(write: write, continuation: continuation)) {
                continuation.resume(throwing: DatabaseError.closed)
            }
        }
    }

    private static let end = Statement("COMMIT")
    private static let rollback = Statement("ROLLBACK")
    /// Connections that are kept for the next read.
    private static let idleReaders = 8

    private func borrow() throws -> SQLiteConnection {
        let connection = try readers.withLock { $0?.popLast() } ?? SQLiteConnection(path: path, mode: .readOnly)
        connection.limitReads(nanoseconds: options.readLimitNanoseconds)
        return connection
    }

    public func readOnce<T: Sendable>(_ body: (any Reader) async throws -> T) async throws -> T {
        try await read(SQLiteReader(asksOnce: true) { try self.borrow() }, body)
    }

    public func read<T: Sendable>(_ body: (any Reader) async throws -> T) async throws -> T {
        try await read(SQLiteReader(asksOnce: false) { try self.borrow() }, body)
    }

    private func read<T>(_ reader: SQLiteReader, _ body: (any Reader) async throws -> T) async throws -> T {
        let result: T
        do { result = try await body(reader) } catch {
            // A connection that can't end its transaction is not used again.
            if let connection = reader.connection {
                try reader.end(by: Self.rollback)
                giveBack(connection)
            }
            throw error
        }
        if let connection = reader.connection {
            try reader.end(by: Self.end)
            giveBack(connection)
        }
        return result
    }

    private func giveBack(_ connection: SQLiteConnection) {
        connection.limitReads(nanoseconds: nil)
        readers.withLock { idle in
            if let count = idle?.count, count < Self.idleReaders { idle?.append(connection) }
        }
    }

    private static let integrityCheck = Statement("PRAGMA integrity_check")
    private static let vacuumInto = Statement("VACUUM INTO $1")

    public func damage() async throws -> [String] {
        let connection = try SQLiteConnection(path: path, mode: .readOnly)
        var found: [String] = []
        try connection.run(Self.integrityCheck, []) { found.append($0.text(0)) }
        return found == ["ok"] ? [] : found
    }

    public func copy(to target: String) async throws {
        // On a connection of its own: writers go on meanwhile, and the copy shows one moment.
        let connection = try SQLiteConnection(path: path, mode: .readWrite)
        try connection.run(Self.vacuumInto, [.text(target)])
    }

    public func close() async {
        await queue.close()
        inPlace.withLock { $0 = true }
        await checkpointer.close()
        readers.withLock { $0 = nil }
        writer.finish()
    }
}

/// A read transaction that takes a connection when it first asks: who finds all in memory, or waits for what another one reads,
/// holds none. SQLite, too, takes its snapshot at the first question. Its calls never suspend.
private final class SQLiteReader: Reader {
    private(set) var connection: SQLiteConnection?
    private var hasBegun = false
    private let asksOnce: Bool
    private let borrow: () throws -> SQLiteConnection

    private static let begin = Statement("BEGIN")

    init(asksOnce: Bool, borrow: @escaping () throws -> SQLiteConnection) {
        self.asksOnce = asksOnce
        self.borrow = borrow
    }

    func run(_ statement: Statement, _ sets: [[SQLValue]], _ take: (Int, any Row) throws -> Void) async throws {
        if sets.isEmpty { return }
        let connection = try self.connection ?? borrow()
        self.connection = connection
        // Without a transaction the file is locked for each set anew.
        if !hasBegun, !asksOnce || sets.count > 1 {
            try connection.run(Self.begin, [])
            hasBegun = true
        }
        for (index, values) in sets.enumerated() {
            try connection.run(statement, values) { try take(index, $0) }
        }
    }

    func end(by statement: Statement) throws {
        if hasBegun { try connection?.run(statement, []) }
    }
}
