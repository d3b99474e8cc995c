import Homeserver
import NIOCore
import NIOHTTP1
import Synchronization
import Testing

@testable import HomeserverHTTP

/// What a connection does with clients that behave.
@Suite struct ConnectionTests {
    private let router = Router([
        Endpoint(.GET, "/hello", authentication: .none) { _ in .text("hello") },
        Endpoint(.GET, "/address", authentication: .none) { .text($0.remoteAddress.description) },
        Endpoint(.POST, "/length", authentication: .none) { request in
            var length = 0
            for try await part in request.body { length += part.readableBytes }
            return .text("\(length)")
        },
        Endpoint(.POST, "/small", authentication: .none) { request in
            .text("\(try await request.collect(upTo: 1000).count)")
        },
        Endpoint(.POST, "/unread", authentication: .none) { _ in .text("unread") },
        Endpoint(.GET, "/stream", authentication: .none) { _ in
            Response(
                body: .stream { writer in
                    for number in 0..<3 { try await writer.write(ByteBuffer(string: "part \(number);")) }
                })
        },
        Endpoint(.GET, "/large", authentication: .none) { _ in
            Response(body: .bytes([UInt8](repeating: 7, count: 5_000_000)))
        },
        Endpoint(.GET, "/short", authentication: .none) { _ in
            Response(body: .stream(length: 10) { try await $0.write(ByteBuffer(string: "short")) })
        },
        Endpoint(.GET, "/file", authentication: .none) { _ in
            Response(body: .file(path: "/etc/hosts", offset: 2, size: 5))
        },
        Endpoint(.GET, "/missing-file", authentication: .none) { _ in
            Response(body: .file(path: "/nonexistent", size: 5))
        },
        Endpoint(.GET, "/injected", authentication: .none) { _ in
            Response(headers: ["X-Fine": "yes", "X-Name": "a\r\nSet-Cookie: b", "X\r\nY": "c"], body: .bytes([]))
        },
    ])

    private static let get = "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"

    @Test("a connection serves one request after the other")
    func keepAlive() async throws {
        try await withServer(router) { server in
            let client = try await SocketClient(port: server.port)
            for _ in 0..<3 {
                try await client.send(Self.get)
                #expect(try await client.answer().text == "hello")
            }
        }
    }

    @Test(
        "what only reads is given up when its client goes, what may change something is done to its end",
        arguments: [("GET", true), ("POST", false), ("PUT", true)])
    func hangUp(method: String, isGivenUp: Bool) async throws {
        let (begun, begin) = AsyncStream<Void>.makeStream()
        let (told, tell) = AsyncStream<Void>.makeStream()
        let (ends, end) = AsyncStream<Bool>.makeStream()
        func slow(_ method: HTTPMethod, onlyReads: Bool? = nil) -> Endpoint {
            Endpoint(method, "/slow", authentication: .none, onlyReads: onlyReads) { _ in
                begin.yield()
                // Of a cancelled task the stream ends.
                for await _ in told { break }
                end.yield(Task.isCancelled)
                return .text("done")
            }
        }
        let router = Router([slow(.GET), slow(.POST), slow(.PUT, onlyReads: true)])
        try await withServer(router) { server in
            let client = try await SocketClient(port: server.port)
            try await client.send("\(method) /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
            for await _ in begun { break }
            await client.close()
            await server.connections.waitUntilEmpty()
            if !isGivenUp { tell.yield() }
            for await outcome in ends {
                #expect(outcome == isGivenUp)
                break
            }
        }
    }

    @Test("requests that are sent ahead are answered in their order")
    func pipelining() async throws {
        try await withServer(router) { server in
            let client = try await SocketClient(port: server.port)
            try await client.send(
                Self.get + "POST /length HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
                    + "GET /stream HTTP/1.1\r\nHost: a\r\n\r\n" + String(repeating: Self.get, count: 500))
            #expect(try await client.answer().text == "hello")
            #expect(try await client.answer().text == "3")
            #expect(try await client.answer().text == "part 0;part 1;part 2;")
            for _ in 0..<500 { #expect(try await client.answer().text == "hello") }
        }
    }

    @Test(
        "Connection: close and HTTP/1.0 close after the answer",
        arguments: [
            "GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "GET /hello HTTP/1.0\r\n\r\n",
            "GET /stream HTTP/1.0\r\n\r\n",
        ])
    func close(_ request: String) async throws {
        try await withServer(router) { server in
            let client = try await SocketClient(port: server.port)
            try await client.send(request)
            let text = String(decoding: try await client.rest(), as: UTF8.self)
            #expect(text.contains("onnection: close"))
            #expect(text.hasSuffix("hello") || text.hasSuffix("part 0;part 1;part 2;"))
            #expect(!text.contains("chunked"))
        }
    }

    @Test("a body may come in chunks, and in pieces of any size")
    func chunked() async throws {
        try await withServer(router) { server in
            let client = try await SocketClient(port: server.port)
            let request =
                "POST /length HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n1\r\ne\r\n0\r\n\r\n"
            for character in request { try await client.send(String(character)) }
            #expect(try await client.answer().text == "5")
            try await client.send(Self.get)
            #expect(try await client.answer().text == "hello")
        }
    }

    @Test("a large body is read while it arrives")
    func streamedBody() async throws {
        try await withServer(router) { server in
            let client = try await SocketClient(port: server.port)
            try await client.send("POST /length HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\n\r\n")
            for _ in 0..<50 { try await client.send(String(repeating: "x", count: 100_000)) }
            #expect(try await client.answer().text == "5000000")
            try await client.send(Self.get)
            #expect(try await client.answer().text == "hello")
        }
    }

    @Test("a large answer arrives whole")
    func largeAnswer() async throws {
        try await withServer(router) { server in
            let client = try await SocketClient(port: server.port)
            try await client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n" + Self.get)
            #expect(try await client.answer().body.count == 5_000_000)
            #expect(try await client.answer().text == "hello")
        }
    }

    @Test("100 Continue is said when the handler reads the body, and not when it refuses it")
    func expectContinue() async throws {
        try await withServer(router) { server in
            let client = try await SocketClient(port: server.port)
            try await client.send(
                "POST /small HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
            #expect(try await client.answer().status == 100)
            try await client.send("ab")
            #expect(try await client.answer().text == "2")
            try await client.send(
                "POST /small HTTP/1.1\r\nHost: a\r\nContent-Length: 2000\r\nExpect: 100-continue\r\n\r\n")
            let refusal = try await client.answer()
            #expect(refusal.status == 413)
            #expect(refusal.header("Connection") == "close")
        }
    }

    @Test("a body that nobody reads is thrown away, or closes the connection when it is large")
    func unreadBody() async throws {
        try await withServer(router) { server in
            let client = try await SocketClient(port: server.port)
            try await client.send("POST /unread HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
            let closing = try await client.answer()
            #expect(closing.text == "unread")
            #expect(closing.header("Connection") == "close")

            let other = try await SocketClient(port: server.port)
            try await other.send("POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: 70000\r\n\r\n")
            let answer = try await other.answer()
            #expect(answer.text == "unread")
            #expect(answer.header("Connection") == "close")

            let small = try await SocketClient(port: server.port)
            try await small.send("POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: 65537\r\n\r\nx")
            let kept = try await small.answer()
            #expect(kept.header("Connection") == nil)
            try await small.send(String(repeating: "x", count: 65536) + Self.get)
            #expect(try await small.answer().text == "hello")
        }
    }

    @Test("files and parts of files are sent; a missing one is an error with an answer")
    func files() async throws {
        try await withServer(router) { server in
            let client = try await SocketClient(port: server.port)
            try await client.send("GET /file HTTP/1.1\r\nHost: a\r\n\r\n")
            #expect(try await client.answer().body.count == 5)
            try await client.send("GET /missing-file HTTP/1.1\r\nHost: a\r\n\r\n")
            let failure = try await client.answer()
            #expect(failure.status == 500)
            #expect(!failure.text.contains("nonexistent"))
        }
    }

    @Test("an answer that breaks off closes the connection, so that nobody takes it for whole")
    func brokenAnswer() async throws {
        try await withServer(router) { server in
            let client = try await SocketClient(port: server.port)
            try await client.send("GET /short HTTP/1.1\r\nHost: a\r\n\r\n")
            await #expect(throws: SocketClient.Closed.self) { try await client.answer() }
        }
    }

    @Test("A27: a line break in a header of ours never reaches the wire")
    func headerInjection() async throws {
        try await withServer(router) { server in
            let client = try await SocketClient(port: server.port)
            try await client.send("GET /injected HTTP/1.1\r\nHost: a\r\n\r\n")
            let answer = try await client.answer()
            #expect(answer.header("X-Fine") == "yes")
            #expect(answer.header("Set-Cookie") == nil && answer.header("Y") == nil && answer.header("X-Name") == nil)
        }
    }

    @Test(
        "X-Forwarded-For counts from trusted proxies only, and only as far as they can vouch",
        arguments: [
            ([], "1.2.3.4", "127.0.0.1"),
            (["127.0.0.0/8"], "1.2.3.4", "1.2.3.4"),
            (["127.0.0.0/8"], "6.6.6.6, 1.2.3.4", "1.2.3.4"),
            (["127.0.0.0/8", "10.0.0.0/8"], "6.6.6.6, 2001:DB8::1, 10.1.1.1", "2001:db8::1"),
            (["127.0.0.0/8"], "1.2.3.4, nonsense", "127.0.0.1"),
            (["127.0.0.0/8"], "", "127.0.0.1"),
        ])
    func forwardedFor(_ proxies: [String], _ header: String, _ expected: String) async throws {
        try await withServer(router, trustedProxies: proxies.compactMap { AddressRange($0) }) { server in
            let client = try await SocketClient(port: server.port)
            try await client.send("GET /address HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: \(header)\r\n\r\n")
            #expect(try await client.answer().text == expected)
        }
    }

    @Test("the task of a request is cancelled when its client goes away")
    func cancellation() async throws {
        let (events, continuation) = AsyncStream<String>.makeStream()
        let router = Router([
            Endpoint(.GET, "/wait", authentication: .none) { _ in
                continuation.yield("started")
                do { try await Task.sleep(for: .seconds(60)) } catch { continuation.yield("cancelled") }
                return .text("late")
            }
        ])
        try await withServer(router) { server in
            let client = try await SocketClient(port: server.port)
            try await client.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
            var iterator = events.makeAsyncIterator()
            #expect(await iterator.next() == "started")
            await client.close()
            #expect(await iterator.next() == "cancelled")
        }
    }

    @Test("requests run on the event loop of their connection")
    func eventLoop() async throws {
        let router = Router([
            Endpoint(.GET, "/loop", authentication: .none) { request in
                let before = request.eventLoop.inEventLoop
                await Task.yield()
                return .text("\(before) \(request.eventLoop.inEventLoop)")
            }
        ])
        try await withServer(router) { server in
            let client = try await SocketClient(port: server.port)
            try await client.send("GET /loop HTTP/1.1\r\nHost: a\r\n\r\n")
            #expect(try await client.answer().text == "true true")
        }
    }
}
