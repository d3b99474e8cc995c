import Logging
import Synchronization

/// What is known to be committed, by this node and by the others, told in the order of positions. Belongs to the loop.
///
/// `published` is the position up to which everything is visible *and* its topics have been told. An own
/// transaction whose positions follow on it is told at once; where something lies between (another node was faster, or a
/// transaction failed and left a hole), the table of changes is read, once for all that wait.
final class PostgreSQLFeed {
    private struct Own {
        let first: Int64
        let last: Int64
        let topics: [Topic]
        let deadline: UInt64
        let answer: () -> Void
    }

    private struct Waiting {
        let position: Int64
        let deadline: UInt64
        /// The readings that had begun when it came: only a later one can tell that there is no such position.
        let readings: Int
        let answer: (Result<Bool, DatabaseError>) -> Void
    }

    private unowned let core: PostgreSQLCore
    private var connection: PostgreSQLConnection?
    private var isConnecting = false
    private var retryAt: UInt64 = 0
    private var isReading = false
    private var mustReadAgain = false
    /// Own transactions that are committed and not yet told.
    private var own: [Own] = []
    /// Who waits for a position, and until when.
    private var waiting: [Waiting] = []
    /// Counts the readings of the table.
    private var readings = 0
    /// Until when a transaction of this node may still be committed without this node being told so by the answer.
    private var uncertainUntil: UInt64 = 0
    private var lastPruned: Int64 = 0
    private var mustCompare = true

    let presence = PostgreSQLPresence()
    let published: Atomic<Int64>
    /// Called for what is committed, in order. The lock protects the list; the closures only take note.
    let observers = Mutex<[CommitObserver]>([])

    /// How long the answer to a write waits until everything before it is told, in nanoseconds.
    private static let patience: UInt64 = 2_000_000_000
    /// Changes read at a time.
    private static let page: Int64 = 1_000
    /// Positions for which changes are kept. A node that was away for longer forgets all that it knew.
    private static let kept: Int64 = 200_000

    init(core: PostgreSQLCore, position: Int64) {
        self.core = core
        published = Atomic(position)
        lastPruned = position
    }

    private var position: Int64 { published.load(ordering: .relaxed) }

    // MARK: - Telling

    /// An own transaction is committed.
    func committed(first: Int64, last: Int64, _ topics: [Topic], _ answer: @escaping () -> Void) {
        own.append(
            Own(
                first: first, last: last, topics: topics, deadline: MonotonicTime.nanoseconds() + Self.patience,
                answer: answer))
        settle()
    }

    /// Tells of own transactions that follow on what is told, and answers those that are behind it.
    private func settle() {
        while let next = own.firstIndex(where: { $0.first == position + 1 }) {
            tell(own[next].last, own[next].topics, elsewhere: false)
        }
        own.removeAll { one in
            if one.last > position { return false }
            one.answer()
            return true
        }
        waiting.removeAll { one in
            if one.position > position { return false }
            one.answer(.success(true))
            return true
        }
        if !own.isEmpty { catchUp() }
    }

    /// A connection was lost while it carried out a transaction: if that is committed, it is news to this node as if another had
    /// made it.
    func lostTransaction() {
        uncertainUntil = MonotonicTime.nanoseconds() + 2 * PostgreSQLCore.requestLimit
        catchUp()
    }

    private func tell(_ upTo: Int64, _ topics: [Topic], elsewhere: Bool) {
        let commit = Commit(position: upTo, topics: topics, isElsewhere: elsewhere)
        let observers = topics.isEmpty ? [] : observers.withLock { $0 }
        for observer in observers { observer.note(commit) }
        published.store(upTo, ordering: .releasing)
        for observer in observers { observer.wake(commit) }
    }

    // MARK: - Reading what others have changed

    private static let read = Statement(
        "SELECT position, node, topics FROM changes WHERE position > $1 ORDER BY position LIMIT \(page)")
    private static let delete = Statement("DELETE FROM changes WHERE position < $1")
    private static let oldest = Statement("SELECT min(position) FROM changes")

    /// Reads what is committed behind what has been told.
    func catchUp() {
        guard let connection, !connection.isBroken else { return }
        if isReading {
            mustReadAgain = true
            return
        }
        isReading = true
        let commands = [PostgreSQLCommand(Self.read, [.integer(position)]), PostgreSQLCommand(Self.oldest)]
        let mustCompare = mustCompare
        readings += 1
        let reading = readings
        let request = PostgreSQLRequest(commands) { [self] outcome in
            isReading = false
            guard case .success(let results) = outcome else { return }
            if mustCompare {
                let oldest = results[1].row(0).optionalInteger(0) ?? 0
                if oldest > position + 1 { tell(oldest - 1, [.everything], elsewhere: true) }
                self.mustCompare = false
            }
            take(results[0], reading)
        }
        request.deadline = MonotonicTime.nanoseconds() + PostgreSQLCore.requestLimit
        connection.send(request)
    }

    private func take(_ changes: PostgreSQLResult, _ reading: Int) {
        for index in 0..<changes.count {
            let row = changes.row(index)
            let at = row.integer(0)
            // An own transaction that was answered meanwhile.
            if at <= position { continue }
            let isOwn = row.integer(1) == core.node && MonotonicTime.nanoseconds() >= uncertainUntil
            tell(at, Topic.unpack(row.blob(2)), elsewhere: !isOwn)
        }
        let isAll = changes.count < Self.page
        if isAll {
            waiting.removeAll { one in
                if one.readings >= reading { return false }
                one.answer(.success(one.position <= position))
                return true
            }
        }
        let again = mustReadAgain || !isAll
        mustReadAgain = false
        settle()
        if again { catchUp() }
        prune()
    }

    /// Waits until everything up to a position is told. Answers false if nobody has committed it.
    func reach(_ position: Int64, _ answer: @escaping (Result<Bool, DatabaseError>) -> Void) {
        if position <= self.position { return answer(.success(true)) }
        waiting.append(
            Waiting(
                position: position, deadline: MonotonicTime.nanoseconds() + PostgreSQLCore.waitLimit,
                readings: readings,
                answer: answer))
        catchUp()
    }

    private func prune() {
        guard position - lastPruned > Self.kept / 10 else { return }
        lastPruned = position
        var write = Write()
        write.run(Self.delete, .integer(position - Self.kept))
        core.writing.add(write) { _ in }
    }

    // MARK: - The connection

    func connected(_ outcome: Result<PostgreSQLConnection, DatabaseError>) {
        isConnecting = false
        switch outcome {
        case .failure(let error):
            core.logger.warning("not listening to the database", metadata: ["reason": "\(error)"])
            retryAt = MonotonicTime.nanoseconds() + 500_000_000
        case .success(let connection):
            self.connection = connection
            core.loop.connections[connection.socket] = connection
            isReading = false
            mustReadAgain = false
            mustCompare = true
            connection.onNotification = { [unowned self] payload in heard(payload) }
            presence.arrived()
            // What was committed while nobody listened.
            catchUp()
        }
    }

    /// A notification: the position and the node, in decimal.
    private func heard(_ payload: String) {
        let parts = payload.split(separator: " ")
        guard parts.count == 2, let at = Int64(parts[0]), let node = Int64(parts[1]) else { return }
        if node != core.node { presence.heardOther() }
        // What this node has committed it hears of by the answer to its COMMIT.
        if at > position, node != core.node || MonotonicTime.nanoseconds() < uncertainUntil { catchUp() }
    }

    func tend(_ now: UInt64) -> UInt64 {
        if let connection, connection.isBroken {
            core.loop.forget(connection)
            self.connection = nil
            isReading = false
            presence.left()
            settle()
        }
        if connection == nil, !isConnecting, !core.isClosing, now >= retryAt {
            isConnecting = true
            core.connect(.listening)
        }
        waiting.removeAll { one in
            if one.deadline > now { return false }
            one.answer(.failure(.unavailable("this node has not caught up with the others")))
            return true
        }
        // It is durable, which is what the answer says; what lies before it will be told when it is known.
        own.removeAll { one in
            if one.deadline > now { return false }
            one.answer()
            return true
        }
        var next = min(waiting.map(\.deadline).min() ?? .max, own.map(\.deadline).min() ?? .max)
        next = min(next, presence.tend(now, connection))
        return connection == nil && !isConnecting ? min(next, retryAt) : next
    }

    func close() {
        let left = own
        own = []
        for one in left { one.answer() }
        for one in waiting { one.answer(.failure(.closed)) }
        waiting = []
        presence.close()
        connection = nil
    }
}
