import Homeserver
import Synchronization

/// The bodies of requests that are kept in memory before it is known who sends them: whoever sends large ones and never comes to their
/// end, on however many connections, takes no more memory than this (A16, A18).
final class HeldBodies: Sendable {
    /// Bytes of all of them.
    private let most: Int
    /// Bytes that each request may have whatever the others take: events and ordinary transactions.
    private let free: Int
    private let held = Atomic(0)

    init(most: Int = 128 << 20, free: Int = 1 << 20) {
        self.most = most
        self.free = free
    }

    /// One body, for as long as this lives.
    final class Body: Sendable {
        private let all: HeldBodies
        private let bytes = Atomic(0)

        init(of all: HeldBodies) { self.all = all }

        deinit { all.held.subtract(bytes.load(ordering: .relaxed), ordering: .relaxed) }

        /// Counts what has come of it.
        ///
        /// - Throws: `M_LIMIT_EXCEEDED` if there is too much of all.
        func add(_ count: Int) throws {
            let own = bytes.add(count, ordering: .relaxed).newValue
            let sum = all.held.add(count, ordering: .relaxed).newValue
            guard own <= all.free || sum <= all.most else { throw MatrixError.limitExceeded(retryAfterMS: 10_000) }
        }
    }
}
