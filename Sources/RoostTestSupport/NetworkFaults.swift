import Homeserver
import MatrixCore
import Synchronization

/// What happens to requests on their way, as a seed says: they take time, overtake one another, come twice or never, and so do the
/// answers. Time is that of a manual clock.
public final class NetworkFaults: Sendable {
    /// How bad it is.
    public struct Weather: Sendable {
        /// Milliseconds that a request takes, and an answer, at most.
        public var delay: Int64 = 0
        /// Of a hundred requests, those that take up to `longDelay` and so are overtaken by later ones.
        public var delayed = 0
        public var longDelay: Int64 = 40_000
        /// Of a hundred requests, those that are lost on their way, those whose answer is, and those that come a second time, later.
        public var lost = 0
        public var unanswered = 0
        public var repeated = 0
        /// Of a hundred questions for events of a room that somebody lacks, those that are lost besides.
        public var lostQuestions = 0
        /// Servers that take requests and never do anything about them.
        public var hanging: Set<ServerName> = []
        /// Servers that take up to `longDelay` for each answer.
        public var slow: Set<ServerName> = []

        public init() {}
    }

    private struct State {
        var generator: SeededGenerator
        var weather = Weather()
    }

    private let clock: ManualSurroundings
    private let state: Mutex<State>

    public init(clock: ManualSurroundings, seed: UInt64) {
        self.clock = clock
        state = Mutex(State(generator: SeededGenerator(seed: seed)))
    }

    public func change(_ body: (inout Weather) -> Void) { state.withLock { body(&$0.weather) } }

    private struct Fate {
        /// nil: it never arrives.
        var arrival: Int64?
        var repetition: Int64?
        /// nil: nobody hears the answer.
        var answer: Int64?
    }

    private static let questions = ["/v1/get_missing_events/", "/v1/event/"]

    private func fate(of request: ServerRequest) -> Fate {
        state.withLock { state in
            let weather = state.weather
            func chance(_ percent: Int) -> Bool { Int.random(in: 0..<100, using: &state.generator) < percent }
            func delay(_ most: Int64) -> Int64 { Int64.random(in: 0...most, using: &state.generator) }
            // All are drawn, whatever becomes of them.
            let arrival = chance(weather.delayed) ? delay(weather.longDelay) : delay(weather.delay)
            let isSlow = weather.slow.contains(request.destination)
            let answer = isSlow ? delay(weather.longDelay) : delay(weather.delay)
            let repetition = chance(weather.repeated) ? arrival + delay(weather.longDelay) : nil
            var isLost = chance(weather.lost) || weather.hanging.contains(request.destination)
            if weather.lostQuestions > 0, Self.questions.contains(where: request.target.contains) {
                isLost = chance(weather.lostQuestions) || isLost
            }
            return Fate(
                arrival: isLost ? nil : arrival, repetition: repetition,
                answer: chance(weather.unanswered) ? nil : answer)
        }
    }

    func carry(
        _ request: ServerRequest, _ deliver: @escaping @Sendable () async throws -> ServerResponse
    ) async throws -> ServerResponse {
        let fate = fate(of: request)
        return try await withCheckedThrowingContinuation { continuation in
            let outcome = Outcome(continuation)
            outcome.limit = clock.surroundings.after(request.timeout) {
                outcome.end(.failure(TransportError(.timedOut, "there was no answer in time")))
            }
            if let arrival = fate.arrival {
                later(arrival) {
                    let result: Result<ServerResponse, any Error>
                    do { result = .success(try await deliver()) } catch { result = .failure(error) }
                    if let answer = fate.answer { self.later(answer) { outcome.end(result) } }
                }
            }
            if let repetition = fate.repetition { later(repetition) { _ = try? await deliver() } }
        }
    }

    private func later(_ milliseconds: Int64, _ body: @escaping @Sendable () async -> Void) {
        if milliseconds == 0 {
            Task { await body() }
        } else {
            _ = clock.surroundings.after(milliseconds) { Task { await body() } }
        }
    }

    /// What a request comes to: what happens first.
    private final class Outcome: Sendable {
        private struct State {
            var continuation: CheckedContinuation<ServerResponse, any Error>?
            var limit: Surroundings.Cancel?
        }

        private let state: Mutex<State>

        init(_ continuation: CheckedContinuation<ServerResponse, any Error>) {
            state = Mutex(State(continuation: continuation))
        }

        var limit: Surroundings.Cancel? {
            get { state.withLock { $0.limit } }
            set { state.withLock { $0.limit = newValue } }
        }

        func end(_ result: Result<ServerResponse, any Error>) {
            let (continuation, limit) = state.withLock { state in
                defer { state = State() }
                return (state.continuation, state.limit)
            }
            limit?()
            continuation?.resume(with: result)
        }
    }
}
