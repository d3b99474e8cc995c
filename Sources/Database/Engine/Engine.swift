/// A reader of one consistent state of the database.
///
/// On SQLite the calls answer without suspending; on a networked engine they are pipelined. Code above must not care,
/// and asks for sets: a page of events is one call, not a hundred.
public protocol Reader {
    /// Runs one statement for many sets of values, in one flush where that matters, and hands all their rows over in the
    /// order of the sets, each with the index of its set.
    func run(_ statement: Statement, _ sets: [[SQLValue]], _ take: (Int, any Row) throws -> Void) async throws
}

extension Reader {
    /// Runs a statement and decodes its rows.
    @inlinable
    public func query<T>(
        _ statement: Statement, _ values: [SQLValue], _ decode: (any Row) throws -> T
    ) async throws -> [T] {
        var result: [T] = []
        try await run(statement, [values]) { result.append(try decode($1)) }
        return result
    }

    /// Runs one statement for many sets of values and decodes all their rows in the order of the sets. The closure is told the
    /// index of the set.
    @inlinable
    public func queryEach<T>(
        _ statement: Statement, _ sets: [[SQLValue]], _ decode: (Int, any Row) throws -> T
    ) async throws -> [T] {
        var result: [T] = []
        result.reserveCapacity(sets.count)
        try await run(statement, sets) { result.append(try decode($0, $1)) }
        return result
    }

    @inlinable
    public func first<T>(
        _ statement: Statement, _ values: [SQLValue], _ decode: (any Row) throws -> T
    ) async throws -> T? {
        var first: T?
        try await run(statement, [values]) { _, row in
            if first == nil { first = try decode(row) }
        }
        return first
    }
}

/// Who is told of commits.
public struct CommitObserver: Sendable {
    /// Called before ``Engine/committedPosition`` moves: who reads the position finds everything up to it noted.
    public let note: @Sendable (Commit) -> Void
    /// Called after it has moved: who is woken reads the new position.
    public let wake: @Sendable (Commit) -> Void

    public init(
        note: @escaping @Sendable (Commit) -> Void, wake: @escaping @Sendable (Commit) -> Void = { _ in }
    ) {
        self.note = note
        self.wake = wake
    }
}

/// A database engine: SQLite inside the process, or a PostgreSQL server.
public protocol Engine: Sendable {
    /// Reads from one consistent snapshot. The body is short, and waits for nothing but the reader.
    func read<T: Sendable>(_ body: (any Reader) async throws -> T) async throws -> T

    /// Asks a single small question, such as for what a key names, without a transaction: others wait behind it. Of several sets of
    /// values each may be answered from another state.
    func readOnce<T: Sendable>(_ body: (any Reader) async throws -> T) async throws -> T

    /// Carries out a write together with those of others, and returns when it is durable.
    ///
    /// - Throws: ``DatabaseError``; nothing of the write has then taken effect.
    func write(_ write: Write) async throws -> WriteResult

    /// The highest position that has been committed. Reads that begin after this was read see everything up to it.
    var committedPosition: Int64 { get }

    /// Tells what has been committed here and on other nodes, in the order of positions, before the writers are answered.
    /// Called on the engine's own thread: the closures only take note.
    func onCommit(_ observer: CommitObserver)

    /// Whether other nodes may write into the same database.
    var isShared: Bool { get }

    /// A number that stays the same for as long as certainly no other node writes into the database; nil while one may. What was read
    /// under a number holds under the same number, but for what this node has written itself.
    var solitude: Int? { get }

    /// Returns when no other node trusts any more what it has read before this was called. Whoever ends a right waits for it
    /// after the write.
    ///
    /// - Throws: ``DatabaseError/unavailable(_:)`` if that takes too long.
    func nobodyElseRemembers() async throws

    /// Waits until ``committedPosition`` has come to a position that another node has given out.
    ///
    /// - Returns: false if nobody has committed such a position.
    /// - Throws: ``DatabaseError/unavailable(_:)`` if it takes too long.
    func reach(_ position: Int64) async throws -> Bool

    /// What the engine itself finds wrong with its files; empty if all is well. Reads everything.
    func damage() async throws -> [String]

    /// Writes a copy of the database, as of one moment, to a new SQLite file: whatever the engine, so that a backup can be
    /// opened everywhere, and restored to another engine.
    func copy(to path: String) async throws

    /// What of the database can't be seen from its tables: the first position that was never given out.
    func nextPosition() async throws -> Int64

    /// Finishes what was begun and closes the database.
    func close() async
}

/// Of an engine that belongs to one process.
extension Engine {
    public var solitude: Int? { isShared ? nil : 0 }
    public func nobodyElseRemembers() async throws {}
}

extension Engine {
    public func readOnce<T: Sendable>(_ body: (any Reader) async throws -> T) async throws -> T { try await read(body) }
}
