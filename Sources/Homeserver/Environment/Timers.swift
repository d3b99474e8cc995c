import Dispatch
import HeapModule
import Synchronization

/// What is to happen later. One timer of the system serves any number of ours, because most are taken back long before they are
/// due: each sync that waits has one.
final class Timers: @unchecked Sendable {
    private struct Entry: Comparable {
        /// Nanoseconds of the machine's clock.
        let deadline: UInt64
        let id: UInt64

        static func < (a: Entry, b: Entry) -> Bool { (a.deadline, a.id) < (b.deadline, b.id) }
    }

    private struct State {
        var waiting = Heap<Entry>()
        /// What is to be done; those that were taken back are missing.
        var actions: [UInt64: @Sendable () -> Void] = [:]
        var nextID: UInt64 = 0
        /// For when the system's timer is set.
        var set = UInt64.max
    }

    /// The system's timer is touched under the lock only, which is what makes this sendable.
    private let state = Mutex(State())
    private let source = DispatchSource.makeTimerSource(queue: .global())

    init() {
        source.setEventHandler { [weak self] in self?.fire() }
        source.activate()
    }

    func after(_ milliseconds: Int64, _ run: @escaping @Sendable () -> Void) -> Surroundings.Cancel {
        let delay = UInt64(min(max(milliseconds, 0), 1 << 40)) * 1_000_000
        let deadline = DispatchTime.now().uptimeNanoseconds + delay
        let id = state.withLock { state in
            let id = state.nextID
            state.nextID += 1
            state.actions[id] = run
            state.waiting.insert(Entry(deadline: deadline, id: id))
            if deadline < state.set { set(deadline, &state) }
            return id
        }
        return { [weak self] in self?.cancel(id) }
    }

    private func set(_ deadline: UInt64, _ state: inout State) {
        state.set = deadline
        source.schedule(deadline: DispatchTime(uptimeNanoseconds: deadline), leeway: .milliseconds(1))
    }

    private func cancel(_ id: UInt64) {
        state.withLock { state in
            guard state.actions.removeValue(forKey: id) != nil else { return }
            // What was taken back leaves the heap when its time comes, or when there is more of it than of the rest.
            guard state.waiting.count > 2 * state.actions.count + 1_000 else { return }
            state.waiting = Heap(state.waiting.unordered.filter { state.actions[$0.id] != nil })
        }
    }

    private func fire() {
        let due = state.withLock { state in
            var due: [@Sendable () -> Void] = []
            let now = DispatchTime.now().uptimeNanoseconds
            while let first = state.waiting.min, first.deadline <= now || state.actions[first.id] == nil {
                state.waiting.removeMin()
                if let action = state.actions.removeValue(forKey: first.id) { due.append(action) }
            }
            state.set = .max
            if let next = state.waiting.min { set(next.deadline, &state) }
            return due
        }
        for action in due { action() }
    }
}
