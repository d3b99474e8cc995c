import Logging
import Synchronization

/// What the loop's thread has in hand: pools, writes that wait, and what is known of positions.
///
/// All of it belongs to the loop, but for what is atomic or behind a lock of its own.
final class PostgreSQLCore: @unchecked Sendable {
    let loop = PostgreSQLLoop()
    let url: String
    let logger: Logger
    /// A random number of this process, by which it knows its own changes.
    let node: Int64
    private(set) var readers: PostgreSQLPool!
    private(set) var writers: PostgreSQLPool!
    private(set) var asking: PostgreSQLAsking!
    /// The deepest level of reads within reads that has connections of its own.
    let mostNested: Int
    private(set) var writing: PostgreSQLWriting!
    private(set) var feed: PostgreSQLFeed!
    private(set) var isClosing = false
    private var closed: [CheckedContinuation<Void, Never>] = []
    private let connectors: [WorkThread<PostgreSQLConnection.Purpose>]
    private var nextConnector = 0

    /// How long a request waits for a connection, in nanoseconds.
    static let waitLimit: UInt64 = 10_000_000_000
    /// How long the server may take over what it is asked, in nanoseconds: a little longer than it lets itself.
    static let requestLimit = UInt64(PostgreSQLConnection.statementLimit + 5_000) * 1_000_000

    init(url: String, limits: PostgreSQLEngine.Limits, node: Int64, position: Int64, logger: Logger) {
        self.url = url
        self.node = node
        self.logger = logger
        mostNested = limits.readers.count - 1
        // Two, so that one server that doesn't answer at once doesn't hold up everything.
        let handOver = HandOver()
        connectors = (0..<2).map { _ in
            WorkThread(most: 1) { purposes in
                for purpose in purposes {
                    let outcome: Result<PostgreSQLConnection, DatabaseError>
                    do {
                        let connection = try PostgreSQLConnection(
                            url: url, purpose: purpose, lockMilliseconds: limits.lockMilliseconds)
                        if purpose == .listening {
                            try connection.execute("LISTEN roost")
                            try PostgreSQLPresence.announce(on: connection)
                        }
                        try connection.startPipeline()
                        outcome = .success(connection)
                    } catch { outcome = .failure((error as? DatabaseError) ?? .closed) }
                    handOver.core?.arrived(purpose, outcome)
                }
            }
        }
        handOver.core = self
        let open: (PostgreSQLConnection.Purpose) -> Void = { [unowned self] in connect($0) }
        readers = PostgreSQLPool(
            .reading, limits: limits.readers + [PostgreSQLAsking.most], loop: loop, open: open)
        writers = PostgreSQLPool(.writing, limits: [limits.writers], loop: loop, open: open)
        asking = PostgreSQLAsking(pool: readers, level: limits.readers.count)
        writing = PostgreSQLWriting(core: self)
        feed = PostgreSQLFeed(core: self, position: position)
        // The loop keeps this alive until it has ended, and lets go of it then.
        loop.afterRound = { self.tend() }
    }

    /// The core, for threads that are made before it.
    private final class HandOver: @unchecked Sendable { weak var core: PostgreSQLCore? }

    func connect(_ purpose: PostgreSQLConnection.Purpose) {
        nextConnector = (nextConnector + 1) % connectors.count
        _ = connectors[nextConnector].add(purpose)
    }

    private func arrived(
        _ purpose: PostgreSQLConnection.Purpose, _ outcome: Result<PostgreSQLConnection, DatabaseError>
    ) {
        loop.submit { [self] in
            if isClosing { return }
            if purpose == .listening { return feed.connected(outcome) }
            let pool: PostgreSQLPool = purpose == .reading ? readers : writers
            switch outcome {
            case .success(let connection): pool.opened(connection)
            case .failure(let error):
                logger.warning("the database server can't be reached", metadata: ["reason": "\(error)"])
                pool.failedToOpen(error)
            }
        }
    }

    /// What has to be seen to from time to time.
    private func tend() -> UInt64 {
        let now = MonotonicTime.nanoseconds()
        var next = UInt64.max
        for connection in loop.connections.values {
            if connection.deadline <= now { connection.fail("the server has not answered for too long") }
            next = min(next, connection.deadline)
        }
        asking.dropBroken()
        next = min(next, readers.tend(now), writers.tend(now))
        next = min(next, writing.tend(now), feed.tend(now))
        if isClosing, writing.isIdle { finish() }
        return next
    }

    /// Finishes what has been handed over, and ends the loop.
    func close() async {
        await withCheckedContinuation { continuation in
            let isOpen = loop.submit { [self] in
                closed.append(continuation)
                isClosing = true
                writing.close()
            }
            if !isOpen { continuation.resume() }
        }
        for connector in connectors { await connector.close() }
    }

    private func finish() {
        readers.failAll(.closed)
        writers.failAll(.closed)
        feed.close()
        for connection in loop.connections.values { connection.fail("the database is closed") }
        loop.end()
        let waiting = closed
        closed = []
        for continuation in waiting { continuation.resume() }
    }
}
