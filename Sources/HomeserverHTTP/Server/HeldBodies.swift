import Homeserver
import Synchronization

/// What of the bodies of requests is kept in memory before it is known who sends them, beyond a little that each may have: whoever sends
/// large ones and never comes to their end, on however many connections, takes no more than this, and no address all of it (A16, A18).
final class HeldBodies: Sendable {
    /// Bytes of all of them, and of those from one address.
    private let most: Int
    private let mostOfAddress: Int
    /// Bytes that aren't counted of each: events, and transactions as they mostly are.
    private let free: Int

    private struct Held {
        var all = 0
        var byAddress: [String: Int] = [:]
    }

    /// The lock protects the counts; nothing is awaited while it is held.
    private let held = Mutex(Held())

    init(most: Int = 128 << 20, ofAddress: Int = 32 << 20, free: Int = 256 << 10) {
        self.most = most
        mostOfAddress = ofAddress
        self.free = free
    }

    /// One body, for as long as this lives.
    final class Body: Sendable {
        private let bodies: HeldBodies
        /// nil: the share of addresses isn't for this one.
        private let address: String?
        private let bytes = Atomic(0)

        /// - Parameter address: from where it comes; nil for this machine.
        init(of bodies: HeldBodies, from address: String?) {
            self.bodies = bodies
            self.address = address
        }

        deinit { bodies.change(by: -max(0, bytes.load(ordering: .relaxed) - bodies.free), of: address) }

        /// Counts what has come of it.
        ///
        /// - Throws: `M_LIMIT_EXCEEDED` if there is too much of all, or of what comes from the address.
        func add(_ count: Int) throws {
            let (before, now) = bytes.add(count, ordering: .relaxed)
            let more = max(0, now - bodies.free) - max(0, before - bodies.free)
            guard bodies.change(by: more, of: address) else { throw MatrixError.limitExceeded(retryAfterMS: 10_000) }
        }
    }

    /// - Returns: whether it isn't too much.
    @discardableResult
    private func change(by difference: Int, of address: String?) -> Bool {
        if difference == 0 { return true }
        return held.withLock { held in
            held.all += difference
            guard let address else { return held.all <= most }
            let own = held.byAddress[address, default: 0] + difference
            held.byAddress[address] = own == 0 ? nil : own
            return held.all <= most && own <= mostOfAddress
        }
    }
}
