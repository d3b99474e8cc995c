import Synchronization

/// What a request that may wait has come to.
///
/// One that waits is no task: it is a look that is to be made again. So ten thousand waiting clients take what their requests say,
/// and not ten thousand stacks.
public enum LongPoll: Sendable {
    /// The encoded answer.
    case answered([UInt8])
    case waiting(PendingLook)

    /// Waits in the task that asks, until there is an answer.
    func finished() async throws -> [UInt8] {
        var poll = self
        while true {
            switch poll {
            case .answered(let answer): return answer
            case .waiting(let look):
                await look.woken()
                poll = try await look.again()
            }
        }
    }
}

/// A look for news that found none, and is made again when something has happened, or the time is up.
public final class PendingLook: Sendable {
    private let waiter: Notifier.Waiter
    private let look: @Sendable () async throws -> LongPoll
    /// What ends with the waiting; nil once it has ended.
    private let ending: Mutex<(@Sendable () -> Void)?>

    /// - Parameters:
    ///   - ending: called once, when it waits no more.
    ///   - look: looks again.
    init(
        _ waiter: Notifier.Waiter, ending: @escaping @Sendable () -> Void,
        look: @escaping @Sendable () async throws -> LongPoll
    ) {
        self.waiter = waiter
        self.ending = Mutex(ending)
        self.look = look
    }

    /// Has something called when it is time to look again; perhaps at once, perhaps by another thread, and once at most.
    public func whenWoken(_ wake: @escaping @Sendable () -> Void) { waiter.whenWoken(wake) }

    /// Returns when it is time to look again, or the task is cancelled.
    public func woken() async { await waiter.wait() }

    /// Looks again. Called once, and not after ``abandon()``.
    public func again() async throws -> LongPoll {
        end()
        try Task.checkCancellation()
        return try await look()
    }

    /// Nobody waits for an answer any more.
    public func abandon() { end() }

    private func end() {
        waiter.whenWoken(nil)
        let ending = ending.withLock { ending in
            defer { ending = nil }
            return ending
        }
        ending?()
    }
}
