import MatrixCore
import Synchronization

/// Which servers can be reached: a server that fails is left alone for a while, the longer the longer it has failed.
public final class PeerHealth: Sendable {
    /// Since when a server has failed, and when it is asked again. Milliseconds since 1970.
    public struct Failure: Sendable, Hashable {
        public var since: Int64
        public var retry: Int64
        /// What the last attempt came to.
        public var reason: String
    }

    private let surroundings: Surroundings
    /// The lock protects the table.
    private let failures = Mutex<[ServerName: Failure]>([:])

    private static let shortest: Int64 = 1_000
    private static let longest: Int64 = 3_600_000
    private static let mostKnown = 50_000

    init(surroundings: Surroundings) { self.surroundings = surroundings }

    /// nil for servers that answered when they were asked last.
    public func failure(of server: ServerName) -> Failure? { failures.withLock { $0[server] } }

    /// Whether a server is left alone at the moment.
    func isResting(_ server: ServerName) -> Bool {
        guard let failure = failure(of: server) else { return false }
        return failure.retry > surroundings.now()
    }

    /// The server answered, or spoke to this one.
    ///
    /// - Returns: whether it had failed before.
    @discardableResult
    func lives(_ server: ServerName) -> Bool { failures.withLock { $0.removeValue(forKey: server) != nil } }

    /// The server could not be reached. The next attempt is after a quarter of the time for which it has failed.
    @discardableResult
    func failed(_ server: ServerName, _ reason: String) -> Failure {
        let now = surroundings.now()
        return failures.withLock { failures in
            if failures.count >= Self.mostKnown { failures.removeAll() }
            let since = failures[server]?.since ?? now
            let pause = min(max((now - since) / 4, Self.shortest), Self.longest)
            let failure = Failure(since: since, retry: now + pause, reason: reason)
            failures[server] = failure
            return failure
        }
    }

    /// Takes up what was known before a restart.
    func restore(_ server: ServerName, _ failure: Failure) { failures.withLock { $0[server] = failure } }
}
