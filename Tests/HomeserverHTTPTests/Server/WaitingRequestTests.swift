import Database
import NIOCore
import NIOPosix
import Testing

@testable import Homeserver
@testable import HomeserverHTTP

/// Requests that wait for something to happen: no task runs for them meanwhile.
@Suite struct WaitingRequestTests {
    /// An endpoint whose answers wait for news of a user, and tell when they begin and end to wait.
    private final class Poll: Sendable {
        let notifier = Notifier()
        let begun = AsyncStream<Void>.makeStream()
        let ended = AsyncStream<Void>.makeStream()
        let user = UserNID(1)

        var router: Router {
            Router([
                Endpoint(.GET, "/poll/{rounds}", authentication: .none) { request in
                    .json(self.look(Int(request["rounds"]) ?? 0))
                },
                Endpoint(.GET, "/hello", authentication: .none) { _ in .text("hello") },
            ])
        }

        /// Waits for news as often as is asked for.
        private func look(_ rounds: Int) -> LongPoll {
            if rounds == 0 { return .answered(Array(#"{"is":"news"}"#.utf8)) }
            let waiter = notifier.register(user, rooms: [])
            defer { begun.continuation.yield() }
            return .waiting(
                PendingLook(waiter) {
                    self.notifier.remove(waiter)
                    self.ended.continuation.yield()
                } look: {
                    self.look(rounds - 1)
                })
        }
    }

    @Test("a request is answered when it has found something, and the next one after it")
    func news() async throws {
        let poll = Poll()
        try await withServer(poll.router) { server in
            let client = try await SocketClient(port: server.port)
            try await client.send("GET /poll/2 HTTP/1.1\r\nHost: a\r\n\r\nGET /hello HTTP/1.1\r\nHost: a\r\n\r\n")
            var begun = poll.begun.stream.makeAsyncIterator()
            for _ in 0..<2 {
                await begun.next()
                poll.notifier.publish([.user(poll.user)])
            }
            let answer = try await client.answer()
            #expect(answer.text == #"{"is":"news"}"#)
            #expect(answer.header("Access-Control-Allow-Origin") == "*")
            #expect(try await client.answer().text == "hello")
        }
    }

    @Test("whoever goes away waits no more, and holds up no shutdown")
    func gone() async throws {
        let poll = Poll()
        let server = try await HTTPServer.start(
            [Listener(.tcp(host: "127.0.0.1", port: 0), serves: .all)], limits: .patient, reply: poll.router.reply)
        let client = try await SocketClient(port: server.port)
        try await client.send("GET /poll/1 HTTP/1.1\r\nHost: a\r\n\r\n")
        var begun = poll.begun.stream.makeAsyncIterator()
        await begun.next()
        await client.close()
        var ended = poll.ended.stream.makeAsyncIterator()
        await ended.next()
        await server.shutdown(within: .seconds(3600))
    }

    @Test("a server that goes down has those who wait look again")
    func drain() async throws {
        let poll = Poll()
        let server = try await HTTPServer.start(
            [Listener(.tcp(host: "127.0.0.1", port: 0), serves: .all)], limits: .patient,
            willDrain: poll.notifier.drain, reply: poll.router.reply)
        let client = try await SocketClient(port: server.port)
        try await client.send("GET /poll/1 HTTP/1.1\r\nHost: a\r\n\r\n")
        var begun = poll.begun.stream.makeAsyncIterator()
        await begun.next()
        async let end: Void = server.shutdown(within: .seconds(3600))
        #expect(try await client.answer().text == #"{"is":"news"}"#)
        await end
    }

    @Test("who asks the router itself waits in its own task, and not beyond its cancellation")
    func cancelled() async throws {
        let poll = Poll()
        let router = poll.router
        let asking = Task {
            await router.respond(
                to: Request(.GET, "/poll/1", id: "test", eventLoop: MultiThreadedEventLoopGroup.singleton.next()))
        }
        var begun = poll.begun.stream.makeAsyncIterator()
        await begun.next()
        asking.cancel()
        #expect(await asking.value.status.code >= 400)
        var ended = poll.ended.stream.makeAsyncIterator()
        await ended.next()
    }
}
