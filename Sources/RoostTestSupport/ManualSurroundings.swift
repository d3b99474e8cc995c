import Homeserver
import Synchronization

/// A clock that stands still until it is moved, and a generator that follows from a seed.
public final class ManualSurroundings: Sendable {
    private struct Timer {
        let at: Int64
        let number: Int
        let run: @Sendable () -> Void
    }

    private struct State {
        var now: Int64
        var generator: SeededGenerator
        var timers: [Timer] = []
        var made = 0
    }

    private let state: Mutex<State>

    /// - Parameter now: what the clock shows, in milliseconds since 1970.
    public init(seed: UInt64 = 1, now: Int64 = 1_700_000_000_000) {
        state = Mutex(State(now: now, generator: SeededGenerator(seed: seed)))
    }

    public var now: Int64 { state.withLock { $0.now } }

    /// How many things are to happen later.
    public var timers: Int { state.withLock { $0.timers.count } }

    /// Milliseconds until the next of them; nil if nothing is to happen.
    public var untilNext: Int64? {
        state.withLock { state in state.timers.map(\.at).min().map { max($0 - state.now, 0) } }
    }

    /// Moves the clock, and calls what was to be called by then, in its order.
    public func advance(by milliseconds: Int64) {
        let due = state.withLock { state in
            state.now += milliseconds
            let due = state.timers.filter { $0.at <= state.now }.sorted { ($0.at, $0.number) < ($1.at, $1.number) }
            state.timers.removeAll { $0.at <= state.now }
            return due
        }
        for timer in due { timer.run() }
    }

    public var surroundings: Surroundings {
        Surroundings(
            now: { self.now },
            randomBytes: { count in
                self.state.withLock { state in
                    (0..<count).map { _ in UInt8.random(in: .min ... .max, using: &state.generator) }
                }
            },
            after: { milliseconds, run in
                let number = self.state.withLock { state in
                    state.made += 1
                    state.timers.append(Timer(at: state.now + milliseconds, number: state.made, run: run))
                    return state.made
                }
                return { self.state.withLock { $0.timers.removeAll { $0.number == number } } }
            })
    }
}
