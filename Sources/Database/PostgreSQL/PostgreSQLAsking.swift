/// The connections for single questions, which need no transaction: all share them, and what is asked in one round of the loop goes out
/// together. Belongs to the loop.
final class PostgreSQLAsking {
    private let pool: PostgreSQLPool
    private var connections: [PostgreSQLConnection] = []
    private var waiting: [(Result<PostgreSQLConnection, DatabaseError>) -> Void] = []
    private var isBorrowing = false

    static let most = 2
    /// Unanswered messages on a connection, from which on another one is used: about fifty questions.
    private static let longBacklog = 100

    private let level: Int

    /// - Parameter level: a share of the pool of their own, so that questions within reads don't wait for those.
    init(pool: PostgreSQLPool, level: Int) {
        self.pool = pool
        self.level = level
    }

    /// Finds a connection on which to ask, together with others.
    func find(_ start: @escaping (Result<PostgreSQLConnection, DatabaseError>) -> Void) {
        dropBroken()
        let best = connections.min { $0.backlog < $1.backlog }
        if let best { start(.success(best)) } else { waiting.append(start) }
        if connections.count < Self.most, best.map({ $0.backlog > Self.longBacklog }) ?? true { addOne() }
    }

    /// Lets go of connections that have broken: the loop would find them readable for ever.
    func dropBroken() {
        guard connections.contains(where: \.isBroken) else { return }
        let broken = connections.filter(\.isBroken)
        connections.removeAll(where: \.isBroken)
        for connection in broken { pool.giveBack(connection, level: level) }
    }

    private func addOne() {
        if isBorrowing { return }
        isBorrowing = true
        pool.borrow(
            level: level,
            .init(deadline: MonotonicTime.nanoseconds() + PostgreSQLCore.waitLimit) { [self] outcome in
                isBorrowing = false
                if case .success(let connection) = outcome { connections.append(connection) }
                let waiting = waiting
                self.waiting = []
                for start in waiting { start(outcome) }
            })
    }
}
