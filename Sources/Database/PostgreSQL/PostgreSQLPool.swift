import Logging

/// The connections to one server: how many there are, who has one, and who waits for one. Belongs to the loop.
///
/// Every wait has an end: whoever gets no connection in time fails with ``DatabaseError/unavailable(_:)``.
final class PostgreSQLPool {
    struct Waiting {
        let deadline: UInt64
        let start: (Result<PostgreSQLConnection, DatabaseError>) -> Void
    }

    let purpose: PostgreSQLConnection.Purpose
    private let loop: PostgreSQLLoop
    private let open: (PostgreSQLConnection.Purpose) -> Void
    /// How many may be lent at each level. A read within a read is of the next level: it never waits for one that waits for it.
    private let limits: [Int]
    private var lent: [Int]
    private var idle: [PostgreSQLConnection] = []
    private var count = 0
    private var opening = 0
    private var waiting: [[Waiting]]
    private var waitingFrom: [Int]
    /// Why none could be opened lately, and when to try again.
    private var lastFailure: String?
    private var retryAt: UInt64 = 0
    private var pause: UInt64 = 0
    private static let shortestPause: UInt64 = 50_000_000
    private static let longestPause: UInt64 = 1_000_000_000
    /// Who may wait for a connection.
    private static let mostWaiting = 20_000

    init(
        _ purpose: PostgreSQLConnection.Purpose, limits: [Int], loop: PostgreSQLLoop,
        open: @escaping (PostgreSQLConnection.Purpose) -> Void
    ) {
        self.purpose = purpose
        self.limits = limits
        self.loop = loop
        self.open = open
        lent = limits.map { _ in 0 }
        waiting = limits.map { _ in [] }
        waitingFrom = limits.map { _ in 0 }
    }

    private func waits(_ level: Int) -> Bool { waitingFrom[level] < waiting[level].count }

    func borrow(level: Int, _ entry: Waiting) {
        let level = min(level, limits.count - 1)
        guard waiting[level].count - waitingFrom[level] < Self.mostWaiting else {
            return entry.start(.failure(.unavailable("too much is waiting for the database")))
        }
        waiting[level].append(entry)
        serve()
    }

    func giveBack(_ connection: PostgreSQLConnection, level: Int) {
        lent[min(level, limits.count - 1)] -= 1
        if connection.isBroken { discard(connection) } else { idle.append(connection) }
        serve()
    }

    private func discard(_ connection: PostgreSQLConnection) {
        count -= 1
        loop.forget(connection)
    }

    func opened(_ connection: PostgreSQLConnection) {
        opening -= 1
        count += 1
        lastFailure = nil
        pause = 0
        loop.connections[connection.socket] = connection
        idle.append(connection)
        serve()
    }

    func failedToOpen(_ error: DatabaseError) {
        opening -= 1
        if case .unavailable(let why) = error { lastFailure = why } else { lastFailure = error.description }
        pause = min(max(pause * 2, Self.shortestPause), Self.longestPause)
        retryAt = MonotonicTime.nanoseconds() + pause
    }

    /// Lends what there is to those that wait, the deepest first.
    private func serve() {
        var unserved = 0
        for level in limits.indices.reversed() {
            while waits(level), lent[level] < limits[level] {
                while let connection = idle.last, connection.isBroken {
                    idle.removeLast()
                    discard(connection)
                }
                guard let connection = idle.popLast() else {
                    unserved += min(waiting[level].count - waitingFrom[level], limits[level] - lent[level])
                    break
                }
                let entry = waiting[level][waitingFrom[level]]
                waitingFrom[level] += 1
                if waitingFrom[level] == waiting[level].count || waitingFrom[level] > 1_024 {
                    waiting[level].removeFirst(waitingFrom[level])
                    waitingFrom[level] = 0
                }
                lent[level] += 1
                entry.start(.success(connection))
            }
        }
        guard unserved > opening, MonotonicTime.nanoseconds() >= retryAt else { return }
        while opening < unserved, count + opening < limits.reduce(0, +) {
            opening += 1
            open(purpose)
            // While the server doesn't answer one try at a time is enough.
            if lastFailure != nil { break }
        }
    }

    /// Drops what has broken, ends waits that were too long, and answers when there is something to do again.
    func tend(_ now: UInt64) -> UInt64 {
        for connection in idle where connection.isBroken { discard(connection) }
        idle.removeAll(where: \.isBroken)
        var next = UInt64.max
        var hasWaiting = false
        for level in limits.indices {
            while waits(level), waiting[level][waitingFrom[level]].deadline <= now {
                let entry = waiting[level][waitingFrom[level]]
                waitingFrom[level] += 1
                entry.start(.failure(.unavailable(lastFailure ?? "all connections to it are in use")))
            }
            if waits(level) {
                hasWaiting = true
                next = min(next, waiting[level][waitingFrom[level]].deadline)
            }
        }
        if hasWaiting {
            serve()
            if retryAt > now { next = min(next, retryAt) }
        }
        return next
    }

    func failAll(_ error: DatabaseError) {
        for level in limits.indices {
            let entries = waiting[level][waitingFrom[level]...]
            waiting[level] = []
            waitingFrom[level] = 0
            for entry in entries { entry.start(.failure(error)) }
        }
        for connection in idle { discard(connection) }
        idle = []
    }
}
