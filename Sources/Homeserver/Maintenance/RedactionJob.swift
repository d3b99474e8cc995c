import Database
import Logging
import MatrixCore

/// Overwrites what was redacted, once it has been kept for as long as configured. What is planned stands in the database: a
/// restart, or another node, goes on with it. One node at a time does the work, under a lease.
final class RedactionJob: Sendable {
    private let rooms: RoomRegistry
    private let node: String
    private let logger: Logger
    private var context: RoomContext { rooms.context }
    private let looks: PeriodicWork

    /// How often the job looks for what is due, and for how long it holds the lease, in milliseconds.
    static let interval: Int64 = 60_000
    private static let batch = 100

    init(rooms: RoomRegistry, node: String, logger: Logger) {
        self.rooms = rooms
        self.node = node
        self.logger = logger
        looks = PeriodicWork(rooms.context.surroundings, every: Self.interval)
    }

    func start() { looks.start { [weak self] in await self?.look() } }

    func stop() { looks.stop() }

    private func look() async {
        do {
            _ = try await run()
        } catch {
            logger.error("overwriting redacted messages failed; it is tried again", metadata: ["reason": "\(error)"])
        }
    }

    /// Overwrites all that is due now.
    ///
    /// - Returns: how many events; nil if another node is at it.
    func run() async throws -> Int? {
        let database = context.database
        let now = context.surroundings.now()
        guard try await database.nextOverwrite().map({ $0 <= now }) ?? false else { return 0 }
        guard let lease = try await database.lease("redactions", holder: node, now: now, duration: 2 * Self.interval)
        else {
            return nil
        }
        var count = 0
        while true {
            let due = try await database.overwritesDue(at: now, limit: Self.batch)
            if due.isEmpty { return count }
            var write = Write()
            write.require(lease)
            let events = Dictionary(try await database.events(due.map(\.event)).map { ($0.nid, $0) }) { $1 }
            for plan in due {
                guard let stored = events[plan.event] else {
                    write.dropOverwrite(plan.event, plannedAt: plan.due)
                    continue
                }
                let version = try await rooms.room(stored.room).version
                let pruned = try context.parse(stored, version).redacted()
                write.overwrite(stored.nid, plannedAt: plan.due, json: pruned.json, cuts: pruned.clientCuts)
            }
            try await database.write(write)
            for plan in due { context.forget(plan.event) }
            count += due.count
        }
    }
}
