import NIOCore
import Synchronization
import Testing

@testable import HomeserverHTTP

/// How a server ends: nobody who is being answered is cut off.
@Suite struct ShutdownTests {
    /// A long poll that answers when it is told to.
    private final class LongPoll: Sendable {
        let waiting = AsyncStream<Void>.makeStream()
        private let state = Mutex<(isOver: Bool, waiters: [CheckedContinuation<Void, Never>])>((false, []))

        func wait() async {
            await withCheckedContinuation { continuation in
                let isOver = state.withLock { state in
                    if !state.isOver { state.waiters.append(continuation) }
                    return state.isOver
                }
                if isOver { continuation.resume() }
                waiting.continuation.yield()
            }
        }

        func end() {
            let waiters = state.withLock { state in
                defer { state = (true, []) }
                return state.waiters
            }
            for waiter in waiters { waiter.resume() }
        }
    }

    private func start(_ poll: LongPoll, willDrain: @escaping @Sendable () async -> Void) async throws -> HTTPServer {
        let router = Router([
            Endpoint(.GET, "/poll", authentication: .none) { _ in
                await poll.wait()
                return .text(Task.isCancelled ? "cancelled" : "news")
            },
            Endpoint(.GET, "/hello", authentication: .none) { _ in .text("hello") },
        ])
        return try await HTTPServer.start(
            [Listener(.tcp(host: "127.0.0.1", port: 0), serves: .all)], limits: .patient,
            willDrain: willDrain, reply: router.reply)
    }

    @Test("long polls are told to answer, idle connections are closed, new ones refused")
    func drain() async throws {
        let poll = LongPoll()
        let server = try await start(poll) { poll.end() }
        let waiting = try await SocketClient(port: server.port)
        try await waiting.send("GET /poll HTTP/1.1\r\nHost: a\r\n\r\nGET /hello HTTP/1.1\r\nHost: a\r\n\r\n")
        var started = poll.waiting.stream.makeAsyncIterator()
        await started.next()
        let idle = try await SocketClient(port: server.port)
        try await idle.send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n")
        #expect(try await idle.answer().text == "hello")

        let port = server.port
        async let end: Void = server.shutdown(within: .seconds(300))
        let answer = try await waiting.answer()
        #expect(answer.text == "news")
        #expect(answer.header("Connection") == "close")
        #expect(try await waiting.rest().isEmpty, "the request behind it is not taken")
        #expect(try await idle.rest().isEmpty)
        await end
        await #expect(throws: (any Error).self) { try await SocketClient(port: port) }
    }

    @Test("requests that still run at the deadline are cancelled")
    func deadline() async throws {
        let poll = LongPoll()
        let server = try await start(poll) {}
        let waiting = try await SocketClient(port: server.port)
        try await waiting.send("GET /poll HTTP/1.1\r\nHost: a\r\n\r\n")
        var started = poll.waiting.stream.makeAsyncIterator()
        await started.next()
        await server.shutdown(within: .milliseconds(50))
        #expect(try await waiting.rest().isEmpty)
        poll.end()
    }
}
