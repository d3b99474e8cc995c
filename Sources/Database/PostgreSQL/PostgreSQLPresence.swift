import Synchronization

/// Whether this node is the only one at the database. Belongs to the loop, but for ``solitude``.
///
/// Each node has a share of an advisory lock for as long as its listening connection lives. One that could have the lock for itself
/// is alone, and trusts what it remembers of rights for a while from when it asked. One that comes to others waits for as long
/// before it says that a right is over: by then the others know that they aren't alone, or trust nothing for want of an answer.
final class PostgreSQLPresence {
    /// For how long an answer is trusted, and how often it is asked for, in nanoseconds.
    private static let trust: UInt64 = 3_000_000_000
    private static let interval: UInt64 = 1_000_000_000

    private struct Waiting {
        let deadline: UInt64
        let answer: (Result<Void, DatabaseError>) -> Void
    }

    /// Goes up whenever another node may have been there.
    private let number = Atomic(0)
    private let trustedUntil = Atomic<UInt64>(0)
    /// Since when the others see this node; nil while they don't.
    private var seenSince: UInt64?
    /// Whether this is the first connection, so that nobody can have missed this node.
    private var isFirst = true
    /// Whether nobody remembers what was before this node was seen.
    private var isSettled = false
    private var isAsking = false
    private var asksNext: UInt64 = 0
    private var waiting: [Waiting] = []

    /// See ``Engine/solitude``.
    var solitude: Int? {
        let number = number.load(ordering: .acquiring)
        return MonotonicTime.nanoseconds() < trustedUntil.load(ordering: .acquiring) ? number : nil
    }

    /// What a new listening connection does to be seen by the others, before it is in use.
    static func announce(on connection: PostgreSQLConnection) throws {
        try connection.execute("SELECT pg_advisory_lock_shared(\(PostgreSQLSchema.presenceLock))")
        // Those who are there needn't wait until they ask. No node has the number zero.
        try connection.execute("SELECT pg_notify('roost', '0 0')")
    }

    func arrived() {
        seenSince = MonotonicTime.nanoseconds()
        isSettled = false
        isAsking = false
        asksNext = 0
    }

    func left() {
        seenSince = nil
        isFirst = false
        heardOther()
    }

    /// Another node is there, or has been.
    func heardOther() {
        trustedUntil.store(0, ordering: .releasing)
        number.add(1, ordering: .releasing)
    }

    private static let ask = Statement(
        """
        SELECT CASE WHEN pg_try_advisory_lock(\(PostgreSQLSchema.presenceLock))
            THEN pg_advisory_unlock(\(PostgreSQLSchema.presenceLock)) ELSE false END
        """)

    private func ask(_ connection: PostgreSQLConnection, _ now: UInt64) {
        isAsking = true
        asksNext = now + Self.interval
        let asked = number.load(ordering: .relaxed)
        let request = PostgreSQLRequest([PostgreSQLCommand(Self.ask)]) { [self] outcome in
            isAsking = false
            guard case .success(let results) = outcome, results[0].count == 1, seenSince != nil else { return }
            let isAlone = results[0].row(0).flag(0)
            // What was heard meanwhile counts more than an answer from before.
            guard isAlone, number.load(ordering: .relaxed) == asked else {
                if !isAlone { heardOther() }
                return
            }
            if isFirst { isSettled = true }
            // Since the last answer somebody may have come and gone.
            if trustedUntil.load(ordering: .relaxed) < now { number.add(1, ordering: .releasing) }
            trustedUntil.store(now + Self.trust, ordering: .releasing)
            answerWaiting(MonotonicTime.nanoseconds())
        }
        request.deadline = now + PostgreSQLCore.requestLimit
        connection.send(request)
    }

    /// See ``Engine/nobodyElseRemembers()``.
    func settle(_ answer: @escaping (Result<Void, DatabaseError>) -> Void) {
        let now = MonotonicTime.nanoseconds()
        waiting.append(Waiting(deadline: now + PostgreSQLCore.waitLimit, answer: answer))
        answerWaiting(now)
    }

    private func answerWaiting(_ now: UInt64) {
        if let seenSince, now >= seenSince + Self.trust { isSettled = true }
        guard !waiting.isEmpty else { return }
        let isSettled = isSettled && seenSince != nil
        let answered = waiting.filter { isSettled || $0.deadline <= now }
        waiting.removeAll { isSettled || $0.deadline <= now }
        for one in answered {
            one.answer(isSettled ? .success(()) : .failure(.unavailable("other nodes may not know of the change yet")))
        }
    }

    /// - Returns: when to come back.
    func tend(_ now: UInt64, _ connection: PostgreSQLConnection?) -> UInt64 {
        answerWaiting(now)
        var next = waiting.map(\.deadline).min() ?? .max
        guard let connection, let seenSince else { return next }
        if !isAsking, now >= asksNext { ask(connection, now) }
        if !waiting.isEmpty { next = min(next, seenSince + Self.trust) }
        return isAsking ? next : min(next, asksNext)
    }

    func close() {
        heardOther()
        seenSince = nil
        for one in waiting { one.answer(.failure(.closed)) }
        waiting = []
    }
}
