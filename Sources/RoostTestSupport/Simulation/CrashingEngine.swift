import Database
import Synchronization

/// An engine that ends as a process does when it is killed, at a write that is chosen before: from then on nothing is written any more,
/// and nobody hears what became of the last write.
public final class CrashingEngine: Engine {
    private struct State {
        var isDead = false
        /// Writes until the crash, the last one included; nil: none is planned.
        var remaining: Int?
        /// Whether the last one still takes effect.
        var isKept = false
    }

    private let inner: SQLiteEngine
    private let state = Mutex(State())
    private let crashed: @Sendable () -> Void

    /// - Parameter crashed: called when it comes to the write that was chosen.
    public init(_ inner: SQLiteEngine, crashed: @escaping @Sendable () -> Void) {
        self.inner = inner
        self.crashed = crashed
    }

    /// Plans a crash: at the `count`th write from now, before or after it has taken effect; nil: none any more.
    public func crash(atWrite count: Int?, isKept: Bool = false) {
        state.withLock { state in
            state.remaining = count
            state.isKept = isKept
        }
    }

    /// Crashes now.
    public func crash() { state.withLock { $0.isDead = true } }

    private enum Step { case go, last, over }

    public func write(_ write: Write) async throws -> WriteResult {
        let step: Step = state.withLock { state in
            if state.isDead { return .over }
            guard let remaining = state.remaining else { return .go }
            state.remaining = remaining - 1
            if remaining > 1 { return .go }
            state.isDead = true
            return .last
        }
        switch step {
        case .go: return try await inner.write(write)
        case .last:
            if state.withLock({ $0.isKept }) { _ = try? await inner.write(write) }
            crashed()
            throw DatabaseError.closed
        case .over: throw DatabaseError.closed
        }
    }

    public func read<T: Sendable>(_ body: (any Reader) async throws -> T) async throws -> T {
        if state.withLock({ $0.isDead }) { throw DatabaseError.closed }
        return try await inner.read(body)
    }

    public var committedPosition: Int64 { inner.committedPosition }
    public func onCommit(_ observer: CommitObserver) { inner.onCommit(observer) }
    public var isShared: Bool { inner.isShared }
    public var solitude: Int? { inner.solitude }
    public func nobodyElseRemembers() async throws { try await inner.nobodyElseRemembers() }
    public func reach(_ position: Int64) async throws -> Bool { try await inner.reach(position) }
    public func damage() async throws -> [String] { try await inner.damage() }
    public func copy(to path: String) async throws { try await inner.copy(to: path) }
    public func nextPosition() async throws -> Int64 { try await inner.nextPosition() }
    public func close() async { await inner.close() }
}
