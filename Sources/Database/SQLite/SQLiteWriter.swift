import CSQLite
import Logging
import Synchronization

/// Carries out writes on the one connection that writes. Used by the writer's thread alone, but for what is atomic.
final class SQLiteWriter: @unchecked Sendable {
    let committedPosition: Atomic<Int64>
    /// Called after each commit, in order. The lock protects the list; the closures only take note.
    let observers = Mutex<[CommitObserver]>([])

    private let connection: SQLiteConnection
    private let logger: Logger
    /// The next position to give out, and the first one that is not reserved.
    private var nextPosition: Int64
    private var reservedUpTo: Int64

    private static let begin = Statement("BEGIN IMMEDIATE")
    private static let commit = Statement("COMMIT")
    private static let rollback = Statement("ROLLBACK")
    private static let readCounter = Statement("SELECT next FROM counters WHERE name = 'position'")
    private static let reserve = Statement("UPDATE counters SET next = $1 WHERE name = 'position'")

    init(connection: SQLiteConnection, logger: Logger) throws {
        self.connection = connection
        self.logger = logger
        var next: Int64 = 1
        try connection.run(Self.readCounter, []) { next = $0.integer(0) }
        nextPosition = next
        reservedUpTo = next
        committedPosition = Atomic(next - 1)
    }

    /// Carries out the writes in one transaction. One that can't be carried out is left out, and the others are tried
    /// again without it.
    ///
    /// - Returns: an outcome for each write, in order.
    func commit(_ writes: [Write]) -> [Result<WriteResult, any Error>] {
        var outcomes = [Result<WriteResult, any Error>?](repeating: nil, count: writes.count)
        var remaining = Array(writes.indices)
        while !remaining.isEmpty {
            do {
                let results = try attempt(remaining.map { writes[$0] })
                for (index, result) in zip(remaining, results) { outcomes[index] = .success(result) }
                publish(remaining.map { writes[$0] })
                break
            } catch let failure as Failure {
                if let culprit = failure.culprit {
                    outcomes[remaining.remove(at: culprit)] = .failure(failure.reason)
                } else {
                    logger.error("writing to the database failed", metadata: ["reason": "\(failure.reason)"])
                    for index in remaining { outcomes[index] = .failure(failure.reason) }
                    break
                }
            } catch {
                for index in remaining { outcomes[index] = .failure(error) }
                break
            }
        }
        return outcomes.map { $0! }
    }

    private struct Failure: Error {
        /// The place of the write that can't be carried out; nil if none can.
        var culprit: Int?
        var reason: any Error
    }

    private func attempt(_ writes: [Write]) throws -> [WriteResult] {
        do { try connection.run(Self.begin, []) } catch { throw Failure(reason: error) }
        var position = nextPosition
        var reserved = reservedUpTo
        var results: [WriteResult] = []
        for (place, write) in writes.enumerated() {
            do {
                results.append(try carryOut(write, firstPosition: position))
            } catch {
                abandon()
                throw Failure(culprit: Self.isOwnFault(error) ? place : nil, reason: error)
            }
            position += Int64(write.positionsTaken)
        }
        do {
            if position > reserved {
                reserved = position + Self.reservation
                try connection.run(Self.reserve, [.integer(reserved)])
            }
            try connection.run(Self.commit, [])
        } catch {
            abandon()
            throw Failure(reason: error)
        }
        nextPosition = position
        reservedUpTo = reserved
        return results
    }

    private static var reservation: Int64 { SQLiteEngine.positionsPerReservation }

    private func carryOut(_ write: Write, firstPosition: Int64) throws -> WriteResult {
        var rows: [[[SQLValue]]] = []
        for step in write.steps {
            var returned: [[SQLValue]] = []
            try connection.run(step.statement, step.values, firstPosition: firstPosition) { row in
                if step.returnsRows { returned.append(row.values) }
            }
            if let expected = step.expectedChanges, connection.changes != expected {
                throw DatabaseError.conflict(step.expectation)
            }
            if step.returnsRows { rows.append(returned) }
        }
        return WriteResult(firstPosition: firstPosition, rows: rows)
    }

    /// Whether the write itself is to blame, so that others can still be carried out.
    private static func isOwnFault(_ error: any Error) -> Bool {
        switch error as? DatabaseError {
        case .conflict, .constraint: true
        case .engine(let code, _): code & 0xFF == SQLITE_TOOBIG
        default: false
        }
    }

    private func abandon() {
        do {
            try connection.run(Self.rollback, [])
        } catch {
            // SQLite has rolled back by itself already, as it does when the disk is full.
            logger.debug("rollback was not needed", metadata: ["reason": "\(error)"])
        }
    }

    /// Copies the whole log into the file, so that the file alone is the database.
    func finish() { connection.checkpointAndTruncate() }

    private func publish(_ writes: [Write]) {
        let position = nextPosition - 1
        let topics = writes.flatMap(\.topics)
        let commit = Commit(position: position, topics: topics, isElsewhere: false)
        let observers = topics.isEmpty ? [] : observers.withLock { $0 }
        for observer in observers { observer.note(commit) }
        committedPosition.store(position, ordering: .releasing)
        for observer in observers { observer.wake(commit) }
    }
}
