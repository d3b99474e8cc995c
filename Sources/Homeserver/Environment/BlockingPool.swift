import Database
import Synchronization

/// A few threads for work that would hold up an event loop: password hashing, pictures.
///
/// The queue is bounded: when more waits than can be done in a reasonable time, new work is refused at once.
final class BlockingPool: Sendable {
    private typealias Job = @Sendable () -> Void

    private let threads: [WorkThread<Job>]
    private let next = Atomic<Int>(0)
    private let waiting = Atomic<Int>(0)
    private let most: Int

    /// - Parameter most: jobs that may wait, those under way included.
    init(threads count: Int, most: Int) {
        threads = (0..<count).map { _ in WorkThread(most: 1) { jobs in for job in jobs { job() } } }
        self.most = most
    }

    /// - Throws: `M_LIMIT_EXCEEDED` when too much is waiting already.
    func run<T: Sendable>(_ work: @escaping @Sendable () throws -> T) async throws -> T {
        guard waiting.add(1, ordering: .relaxed).newValue <= most else {
            waiting.subtract(1, ordering: .relaxed)
            throw MatrixError.limitExceeded(retryAfterMS: 2_000)
        }
        defer { waiting.subtract(1, ordering: .relaxed) }
        let thread = threads[next.add(1, ordering: .relaxed).oldValue % threads.count]
        return try await withCheckedThrowingContinuation { continuation in
            let added = thread.add { continuation.resume(with: Result { try work() }) }
            if !added { continuation.resume(throwing: MatrixError.stopping) }
        }
    }

    func close() async { for thread in threads { await thread.close() } }
}

extension MatrixError {
    /// The server is on its way down.
    static let stopping = MatrixError(.unknown, "The server is stopping; try again in a moment.", status: 503)
}
