import Database
import Logging
import MatrixCore
import Synchronization

/// Takes the words of events over from the queue into the index: a little after they were sent, many at a time, and by one
/// node at a time under a lease. What a crash interrupts is still in the queue.
final class SearchIndexing: Sendable {
    private let rooms: RoomRegistry
    private let node: String
    private let logger: Logger
    private var database: Database { rooms.database }

    private struct Plan {
        /// The timer of the next run.
        var timer: Surroundings.Cancel?
        /// The run that is going on, if there is one.
        var run: Task<Void, Never>?
        var isPlanned = false
        var isStopped = false
    }
    /// The lock protects the plan alone.
    private let plan = Mutex(Plan())

    /// How long events gather in the queue, and for how long a run holds the lease, in milliseconds.
    static let delay: Int64 = 2_000
    private static let leaseTime: Int64 = 60_000
    /// Events of one write: some thousands of short rows, so that who writes a message meanwhile hardly waits.
    private static let batch = 100

    init(rooms: RoomRegistry, node: String, logger: Logger) {
        self.rooms = rooms
        self.node = node
        self.logger = logger
    }

    /// Something was committed; called on the engine's thread.
    func note(_ topics: [Topic]) {
        let concernsRooms = topics.contains { topic in
            if case .room = topic { return true }
            return false
        }
        if concernsRooms { schedule() }
    }

    /// Somebody has had to look through what is in the queue: it is taken over at once, and not once it has gathered for long enough.
    func hurry() {
        let timer = plan.withLock { plan in plan.isPlanned && !plan.isStopped ? plan.timer.take() : nil }
        guard let timer else { return }
        timer()
        begin()
    }

    /// Goes on with what is in the queue, and from now on with what comes.
    func start() { schedule() }

    /// Ends a run that is going on after what it is writing, and begins none any more.
    func close() async {
        let (timer, run) = plan.withLock { plan in
            plan.isStopped = true
            return (plan.timer.take(), plan.run)
        }
        timer?()
        await run?.value
    }

    private func schedule() {
        let isNew = plan.withLock { plan in
            if plan.isPlanned || plan.isStopped { return false }
            plan.isPlanned = true
            return true
        }
        guard isNew else { return }
        let cancel = rooms.context.surroundings.after(Self.delay) { [weak self] in
            self?.begin()
        }
        plan.withLock { $0.timer = cancel }
    }

    private func begin() {
        plan.withLock { plan in
            // What comes from here on is for the next run.
            plan.isPlanned = false
            if plan.isStopped { return }
            let before = plan.run
            plan.run = Task {
                await before?.value
                await self.look()
            }
        }
    }

    private func look() async {
        do {
            if try await run() == nil { schedule() }
        } catch {
            logger.error("indexing for search failed; it is tried again", metadata: ["reason": "\(error)"])
        }
    }

    /// Empties the queue.
    ///
    /// - Returns: how many events were taken over; nil if another node is at it.
    func run() async throws -> Int? {
        var count = 0
        while !plan.withLock(\.isStopped) {
            let queue = try await database.searchQueue(limit: Self.batch)
            if queue.isEmpty { return count }
            let lease = try await database.lease(
                "search", holder: node, now: rooms.context.surroundings.now(), duration: Self.leaseTime)
            guard let lease else { return nil }
            var write = Write()
            write.require(lease)
            let events = Dictionary(try await database.events(queue.map(\.event)).map { ($0.nid, $0) }) { $1 }
            var found: [(event: StoredEvent, words: Set<[UInt8]>)] = []
            for entry in queue {
                if let event = events[entry.event], let words = try await words(of: event) {
                    found.append((event, words))
                } else {
                    write.dropFromSearchQueue(entry)
                }
            }
            write.index(found)
            do { try await database.write(write) } catch DatabaseError.conflict {
                // One of them was redacted meanwhile, or the lease ran out.
                continue
            }
            count += queue.count
        }
        return count
    }

    private func words(of event: StoredEvent) async throws -> Set<[UInt8]>? {
        guard event.redactedBy == nil, event.flags.isDisjoint(with: .hidden) else { return nil }
        let room = try await rooms.room(event.room)
        let words = try rooms.context.searchWords(of: event, room.version)
        return words.isEmpty ? nil : words
    }
}

extension RoomContext {
    /// The words by which an event is found.
    func searchWords(of stored: StoredEvent, _ version: RoomVersion) throws -> Set<[UInt8]> {
        let event = try parse(stored, version)
        return SearchWords.words(type: event.type, content: event.content)
    }
}
