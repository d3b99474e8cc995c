import Homeserver
import Synchronization
import Testing

@testable import HomeserverHTTP

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

@Suite("Looking up names")
struct ResolverThreadsTests {
    private final class Gate: Sendable {
        let isOpen = Atomic(false)
        let waiting = Atomic(0)
    }

    @Test("A16 names whose servers never answer hold up none that was found before, and don't queue without end")
    func unansweredNames() async throws {
        let threads = ResolverThreads(known: 2, others: 2)
        let answer1 = try await threads.run("known.example") { [1] }
        #expect(answer1 == [1])
        let gate = Gate()
        let failures = try await withThrowingTaskGroup(of: Bool.self) { group in
            for number in 0..<150 {
                group.addTask {
                    do {
                        _ = try await threads.run("\(number).evil.example") {
                            gate.waiting.add(1, ordering: .relaxed)
                            while !gate.isOpen.load(ordering: .relaxed) { usleep(1_000) }
                            return [0]
                        }
                        return false
                    } catch let error as TransportError { return error.kind == .busy }
                }
            }
            while gate.waiting.load(ordering: .relaxed) < 2 { try await Task.sleep(for: .milliseconds(1)) }
            let answer2 = try await threads.run("known.example") { [2] }
            #expect(answer2 == [2])
            gate.isOpen.store(true, ordering: .relaxed)
            return try await group.reduce(into: 0) { $0 += $1 ? 1 : 0 }
        }
        // Fifty wait for either of the two threads.
        #expect(failures >= 50)
        let answer3 = try await threads.run("another.example") { [3] }
        #expect(answer3 == [3])
    }
}
