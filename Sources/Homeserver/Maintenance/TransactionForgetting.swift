import Database
import Logging

/// Lets go of what clients' transactions made once no client repeats them any more. One node at a time does that, under a lease.
///
/// The transactions stand in the order of their users and keys, so that a message writes no other index for them: the job goes round
/// all of them, a batch at a time, and writes where it finds old ones.
final class TransactionForgetting: Sendable {
    private let database: Database
    private let surroundings: Surroundings
    private let node: String
    private let logger: Logger
    private let rounds: PeriodicWork

    /// For how long a transaction is known at least, in milliseconds: a client may have been without a network for days before
    /// it repeats one.
    static let memory: Int64 = 7 * 86_400_000
    /// How often the job goes round, in milliseconds.
    static let interval: Int64 = 3_600_000

    init(database: Database, surroundings: Surroundings, node: String, logger: Logger) {
        self.database = database
        self.surroundings = surroundings
        self.node = node
        self.logger = logger
        rounds = PeriodicWork(surroundings, every: Self.interval)
    }

    func start() { rounds.start { [weak self] in await self?.goRound() } }

    func stop() { rounds.stop() }

    private func goRound() async {
        do { try await run() } catch {
            logger.warning("old transactions of clients are forgotten later", metadata: ["reason": "\(error)"])
        }
    }

    /// Goes round once, unless another node does.
    ///
    /// - Parameter batch: transactions that are read at a time, and written at a time at most.
    func run(batch: Int = 1_000) async throws {
        let now = surroundings.now()
        let lease = try await database.lease("transactions", holder: node, now: now, duration: Self.interval / 2)
        guard lease != nil else { return }
        var place: TransactionPlace?
        while let next = try await database.transactions(after: place, limit: batch) {
            place = next.last
            guard next.oldest < now - Self.memory else { continue }
            var write = Write()
            write.forget(next, before: now - Self.memory)
            try await database.write(write)
        }
    }
}
