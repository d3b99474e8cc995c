import Synchronization

/// Something that is done now and then, one time after another, until it is stopped.
final class PeriodicWork: Sendable {
    private struct State {
        var timer: Surroundings.Cancel?
        var isStopped = false
    }

    private let surroundings: Surroundings
    private let interval: Int64
    /// The lock protects the timer; nothing is awaited while it is held.
    private let state = Mutex(State())

    /// - Parameter interval: milliseconds from the end of one time to the next.
    init(_ surroundings: Surroundings, every interval: Int64) {
        self.surroundings = surroundings
        self.interval = interval
    }

    /// Does it for the first time after the interval.
    func start(_ work: @escaping @Sendable () async -> Void) {
        let cancel = surroundings.after(interval) { [weak self] in
            Task {
                await work()
                self?.start(work)
            }
        }
        let isStopped = state.withLock { state in
            state.timer = cancel
            return state.isStopped
        }
        if isStopped { cancel() }
    }

    /// What is being done goes on to its end; it isn't done again.
    func stop() {
        let timer = state.withLock { state in
            state.isStopped = true
            return state.timer.take()
        }
        timer?()
    }
}
