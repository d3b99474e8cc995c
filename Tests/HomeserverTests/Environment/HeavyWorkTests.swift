import Database
import MatrixCore
import RoostTestSupport
import Synchronization
import Testing

@testable import Homeserver

@Suite("Heavy work") struct HeavyWorkTests {
    private struct Failure: Error {}

    /// Work that takes until it may end.
    private final class Piece: Sendable {
        private let began = AsyncStream<Void>.makeStream()
        private let mayEnd = AsyncStream<Void>.makeStream()

        func work() async {
            began.continuation.yield()
            for await _ in mayEnd.stream { break }
        }

        func begun() async { for await _ in began.stream { break } }
        func end() { mayEnd.continuation.finish() }
    }

    /// How many pieces are under way at a time.
    private final class Count: Sendable {
        private let state = Mutex((running: 0, most: 0, done: 0))
        var most: Int { state.withLock { $0.most } }
        var done: Int { state.withLock { $0.done } }

        func begin() {
            state.withLock { state in
                state.running += 1
                state.most = max(state.most, state.running)
            }
        }

        func end() {
            state.withLock { state in
                state.running -= 1
                state.done += 1
            }
        }
    }

    private let heavy = HeavyWork()
    private let alice = UserNID(1), bob = UserNID(2)

    @Test("a user's pieces are done one after another")
    func oneAtATime() async throws {
        let count = Count()
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<50 {
                group.addTask { [heavy, alice] in
                    try await heavy.run(for: alice) {
                        count.begin()
                        for _ in 0..<10 { await Task.yield() }
                        count.end()
                    }
                }
            }
            try await group.waitForAll()
        }
        #expect(count.most == 1)
        #expect(count.done == 50)
    }

    @Test("nobody waits for others' work")
    func apart() async throws {
        let piece = Piece()
        let first = Task { try await heavy.run(for: alice) { await piece.work() } }
        await piece.begun()
        #expect(try await heavy.run(for: bob) { 7 } == 7)
        piece.end()
        try await first.value
    }

    @Test("what fails, or is wanted by nobody when its turn comes, holds up nothing")
    func failures() async throws {
        let piece = Piece()
        let first = Task {
            try await heavy.run(for: alice) {
                await piece.work(); throw Failure()
            }
        }
        await piece.begun()
        let count = Count()
        let second = Task { try await heavy.run(for: alice) { count.begin() } }
        second.cancel()
        piece.end()
        await #expect(throws: Failure.self) { try await first.value }
        await #expect(throws: CancellationError.self) { try await second.value }
        #expect(count.most == 0)
        #expect(try await heavy.run(for: alice) { 7 } == 7)
    }

    @Test("first syncs are such work, what comes after them isn't")
    func firstSyncs() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let since = try await server.sync(alice)["next_batch"]?.string
        let piece = Piece()
        let first = Task {
            try await server.homeserver.sync.heavyWork.run(for: alice.nid) { await piece.work() }
        }
        await piece.begun()
        let count = Count()
        let syncs = [
            Task {
                _ = try await server.sync(alice)
                count.end()
            },
            Task {
                _ = try await server.slidingSync(alice, ["lists": ["all": ["range": [0, 9], "timeline_limit": 1]]])
                count.end()
            },
        ]
        for _ in 0..<20 {
            _ = try await server.sync(alice, since: since)
            _ = try await server.sync(bob)
        }
        #expect(count.done == 0)
        piece.end()
        try await first.value
        for sync in syncs { try await sync.value }
    }
}
