import Logging
import Synchronization

/// The networked engine: a PostgreSQL server, shared by several nodes. `docs/postgresql.md` tells the design.
///
/// One thread drives all connections by readiness and never blocks; callers await. Two more only open connections.
public final class PostgreSQLEngine: Engine {
    /// How many connections a node opens at most, besides the one that listens.
    public struct Limits: Sendable {
        /// For reads, for reads within reads, and for reads within those.
        public var readers = [10, 4, 2]
        public var writers = 4
        /// How long a write waits for what another one holds, in milliseconds: the lock over positions, a row.
        public var lockMilliseconds = 8_000

        public init() {}
    }

    private let core: PostgreSQLCore
    let url: String
    let logger: Logger
    private let blocking = WorkThread<@Sendable () -> Void>(most: 1) { for work in $0 { work() } }

    /// Connects, and brings the database to the current schema.
    ///
    /// - Parameter url: a connection URI of libpq.
    public init(url: String, limits: Limits = Limits(), logger: Logger) async throws {
        self.url = url
        self.logger = logger
        let (connection, position): (PostgreSQLConnection, Int64)
        do {
            (connection, position) = try await Self.run(on: blocking) { try Self.open(url) }
        } catch {
            await blocking.close()
            throw error
        }
        core = PostgreSQLCore(
            url: url, limits: limits, node: Int64.random(in: 1 ... .max), position: position, logger: logger)
        core.loop.submit { [core] in core.feed.connected(.success(connection)) }
        core.loop.startThread()
    }

    /// Prepares the database, and answers a connection that listens and the position from which on it does.
    private static func open(_ url: String) throws -> (PostgreSQLConnection, Int64) {
        do {
            let connection = try PostgreSQLConnection(url: url, purpose: .listening)
            try PostgreSQLSchema.prepare(connection)
            // Listens before it asks how far things are: nothing falls in between.
            try connection.execute("LISTEN roost")
            try PostgreSQLPresence.announce(on: connection)
            let rows = try connection.execute("SELECT coalesce(max(position), 0) FROM changes")
            try connection.startPipeline()
            guard case .integer(let position)? = rows.first?.first else {
                throw DatabaseError.corrupt("the changes can't be read")
            }
            return (connection, position)
        } catch DatabaseError.unavailable(let why) {
            throw DatabaseError.unusable("The PostgreSQL server of database.url can't be used: \(why).")
        }
    }

    /// Does something that blocks on a thread of its own.
    private static func run<T: Sendable>(
        on thread: WorkThread<@Sendable () -> Void>, _ body: @escaping @Sendable () throws -> T
    ) async throws -> T {
        try await withCheckedThrowingContinuation { continuation in
            let isOpen = thread.add { continuation.resume(with: Result { try body() }) }
            if !isOpen { continuation.resume(throwing: DatabaseError.closed) }
        }
    }

    func onOwnThread<T: Sendable>(_ body: @escaping @Sendable () throws -> T) async throws -> T {
        try await Self.run(on: blocking, body)
    }

    public var committedPosition: Int64 { core.feed.published.load(ordering: .acquiring) }

    public var isShared: Bool { true }

    public var solitude: Int? { core.feed.presence.solitude }

    public func nobodyElseRemembers() async throws {
        try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
            let isOpen = core.loop.submit { [core] in
                core.feed.presence.settle { continuation.resume(with: $0.mapError { $0 }) }
            }
            if !isOpen { continuation.resume(throwing: DatabaseError.closed) }
        }
    }

    public func onCommit(_ observer: CommitObserver) {
        core.feed.observers.withLock { $0.append(observer) }
    }

    /// How many reads the current task is within.
    @TaskLocal private static var depth = 0

    public func read<T: Sendable>(_ body: (any Reader) async throws -> T) async throws -> T {
        let depth = Self.depth
        let reader = PostgreSQLReader(core: core, level: depth)
        defer { reader.finish() }
        return try await Self.$depth.withValue(depth + 1) { try await body(reader) }
    }

    public func readOnce<T: Sendable>(_ body: (any Reader) async throws -> T) async throws -> T {
        let reader = PostgreSQLReader(core: core, level: Self.depth, asksOnce: true)
        defer { reader.finish() }
        return try await body(reader)
    }

    public func write(_ write: Write) async throws -> WriteResult {
        try await withCheckedThrowingContinuation { continuation in
            let isOpen = core.loop.submit { [core] in
                core.writing.add(write) { continuation.resume(with: $0) }
            }
            if !isOpen { continuation.resume(throwing: DatabaseError.closed) }
        }
    }

    public func reach(_ position: Int64) async throws -> Bool {
        if position <= committedPosition { return true }
        return try await withCheckedThrowingContinuation { continuation in
            let isOpen = core.loop.submit { [core] in
                core.feed.reach(position) { continuation.resume(with: $0.mapError { $0 }) }
            }
            if !isOpen { continuation.resume(throwing: DatabaseError.closed) }
        }
    }

    private static let lastPosition = Statement("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM positions")

    public func nextPosition() async throws -> Int64 {
        try await readOnce { try await $0.first(Self.lastPosition, []) { $0.integer(0) + 1 } ?? 1 }
    }

    public func close() async {
        await core.close()
        await blocking.close()
    }
}
