import Synchronization
import Testing

@testable import Homeserver

@Suite struct SingleFlightTests {
    private struct Failure: Error {}

    /// Something to find out, which takes until it may end.
    private final class Question: Sendable {
        let answer = Mutex<Int?>(nil)
        let attempts = Atomic(0)
        let began = AsyncStream<Void>.makeStream()
        let mayEnd = AsyncStream<Void>.makeStream()
        private let flight = SingleFlight<String>()

        /// - Parameter outcome: what the attempt of a number comes to, from 1 on.
        func ask(_ name: String = "a", _ outcome: @Sendable (Int) throws -> Int) async throws -> Int {
            try await flight.value(name) {
                answer.withLock { $0 }
            } find: {
                let attempt = attempts.wrappingAdd(1, ordering: .relaxed).newValue
                began.continuation.yield()
                if attempt == 1 { for await _ in mayEnd.stream { break } }
                let found = try outcome(attempt)
                answer.withLock { $0 = found }
                return found
            }
        }
    }

    @Test("what many want to know at once is found out once")
    func once() async throws {
        let question = Question()
        let first = Task { try await question.ask { _ in 7 } }
        for await _ in question.began.stream { break }
        let others = (0..<20).map { _ in Task { try await question.ask { _ in 8 } } }
        question.mayEnd.continuation.finish()
        #expect(try await first.value == 7)
        for other in others { #expect(try await other.value == 7) }
        #expect(question.attempts.load(ordering: .relaxed) == 1)
    }

    @Test("what is asked by another name doesn't wait")
    func apart() async throws {
        let question = Question()
        let first = Task { try await question.ask { _ in 7 } }
        for await _ in question.began.stream { break }
        #expect(try await question.ask("b") { $0 } == 2)
        question.mayEnd.continuation.finish()
        #expect(try await first.value == 7)
    }

    @Test("where finding out fails, the next one tries")
    func failure() async throws {
        let question = Question()
        let outcome: @Sendable (Int) throws -> Int = { attempt in
            if attempt == 1 { throw Failure() }
            return attempt
        }
        let first = Task { try await question.ask("a", outcome) }
        for await _ in question.began.stream { break }
        let second = Task { try await question.ask("a", outcome) }
        question.mayEnd.continuation.finish()
        await #expect(throws: Failure.self) { try await first.value }
        #expect(try await second.value == 2)
    }
}
