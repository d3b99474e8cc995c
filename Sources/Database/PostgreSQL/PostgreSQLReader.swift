/// One read: a snapshot that begins with its first query. The connection is borrowed then, and BEGIN goes out together with
/// the query.
final class PostgreSQLReader: Reader, @unchecked Sendable {
    private let core: PostgreSQLCore
    private let level: Int
    /// Whether there is one question, which is its own transaction.
    fileprivate let asksOnce: Bool
    /// Belongs to the loop.
    fileprivate(set) var connection: PostgreSQLConnection?
    private var hasBegun = false

    init(core: PostgreSQLCore, level: Int, asksOnce: Bool = false) {
        self.asksOnce = asksOnce
        self.core = core
        self.level = min(level, core.mostNested)
    }

    private static let begin = Statement("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    private static let end = Statement("COMMIT")

    func run(_ statement: Statement, _ sets: [[SQLValue]], _ take: (Int, any Row) throws -> Void) async throws {
        if sets.isEmpty { return }
        var commands = PostgreSQLBatch.commands(.question, statement, sets)
        precondition(!asksOnce || !hasBegun, "a read of one question asked another")
        let begins = !hasBegun && !asksOnce
        if begins { commands.insert(PostgreSQLCommand(Self.begin), at: 0) }
        hasBegun = true
        let asked = commands
        let results: [PostgreSQLResult] = try await withCheckedThrowingContinuation { continuation in
            let isOpen = core.loop.submit { self.core.run(asked, for: self, level: self.level, continuation) }
            if !isOpen { continuation.resume(throwing: DatabaseError.closed) }
        }
        var first = 0
        for (command, result) in zip(asked, results).dropFirst(begins ? 1 : 0) {
            if let batch = command.batch {
                for (index, row) in result.rowsOfSets { try take(first + index, row) }
                first += batch.sets.count
            } else {
                for row in 0..<result.count { try take(first, result.row(row)) }
                first += 1
            }
        }
    }

    /// Ends the snapshot; nobody waits for it.
    func finish() {
        if !hasBegun || asksOnce { return }
        core.loop.submit {
            guard let connection = self.connection else { return }
            self.connection = nil
            if !connection.isBroken {
                let request = PostgreSQLRequest([PostgreSQLCommand(Self.end)]) { _ in }
                request.deadline = MonotonicTime.nanoseconds() + PostgreSQLCore.requestLimit
                connection.send(request)
            }
            self.core.readers.giveBack(connection, level: self.level)
        }
    }
}

extension PostgreSQLCore {
    /// Runs the queries of a read, on its connection or on one that it gets. On the loop.
    fileprivate func run(
        _ commands: [PostgreSQLCommand], for reader: PostgreSQLReader, level: Int,
        _ continuation: CheckedContinuation<[PostgreSQLResult], any Error>
    ) {
        func send(on connection: PostgreSQLConnection) {
            let request = PostgreSQLRequest(commands) { outcome in
                continuation.resume(with: outcome.mapError { $0.error })
            }
            request.deadline = MonotonicTime.nanoseconds() + Self.requestLimit
            connection.send(request)
        }
        if let connection = reader.connection { return send(on: connection) }
        if isClosing { return continuation.resume(throwing: DatabaseError.closed) }
        if reader.asksOnce {
            return asking.find { outcome in
                switch outcome {
                case .success(let connection): send(on: connection)
                case .failure(let error): continuation.resume(throwing: error)
                }
            }
        }
        readers.borrow(
            level: level,
            .init(deadline: MonotonicTime.nanoseconds() + Self.waitLimit) { outcome in
                switch outcome {
                case .success(let connection):
                    reader.connection = connection
                    send(on: connection)
                case .failure(let error): continuation.resume(throwing: error)
                }
            })
    }
}
