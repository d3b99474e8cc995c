import Homeserver
import NIOCore
import NIOHTTP1
import Testing

@testable import HomeserverHTTP

/// A16, A18, A27: clients that send too much, too slowly, or what two programs could read in two ways.
@Suite struct HostileClientTests {
    private let router = Router([
        Endpoint(.GET, "/hello", authentication: .none) { _ in .text("hello") },
        Endpoint(.POST, "/small", authentication: .none) { request in
            .text("\(try await request.collect(upTo: 1000).count)")
        },
        Endpoint(.POST, "/length", authentication: .none) { request in
            var length = 0
            for try await part in request.body { length += part.readableBytes }
            return .text("\(length)")
        },
    ])

    @Test(
        "A27: a message whose end is ambiguous is refused and the connection closed",
        arguments: [
            "POST /small HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /",
            "POST /small HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\nGET /",
            "POST /small HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
            "POST /small HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 6\r\n\r\nhello",
            "POST /small HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
            "POST /small HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\nhello",
            "POST /small HTTP/1.1\r\nHost: a\r\nContent-Length: 5x\r\n\r\nhello",
            "POST /small HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\nhello",
            "POST /small HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            "POST /small HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
            "POST /small HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
            "POST /small HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
            "POST /small HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST /small HTTP/1.1\r\nHost: a\r\nX: y\r\n Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello",
            "GET /hello HTTP/1.1\r\n\r\n",
            "GET /hello HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            "GET /hello HTTP/3.7\r\nHost: a\r\n\r\n",
            "GET /hel\u{1}lo HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /hello HTTP/1.1\r\nHost: a\r\nX\u{0}: b\r\n\r\n",
            "GET /hello HTTP/1.1\nHost: a\rX: b\r\n\r\n",
            "NONSENSE\r\n\r\n",
            "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}\u{fc}\u{3}\u{3}",
        ])
    func ambiguous(_ request: String) async throws {
        try await withServer(router) { server in
            let client = try await SocketClient(port: server.port)
            try await client.send(request)
            let answer = try await client.answer()
            #expect(answer.status == 400)
            #expect(answer.header("Connection") == "close")
            #expect(answer.text.contains("M_UNKNOWN"))
            #expect(try await client.rest().isEmpty, "nothing more is answered on this connection")
        }
    }

    @Test(
        "A27: a broken chunk ends the request with 400",
        arguments: [
            "zz\r\n", "5\r\nabcdeX", "-1\r\n", "10000000000000000\r\n", "5;ext=\u{0}\r\n",
        ])
    func brokenChunk(_ chunk: String) async throws {
        try await withServer(router) { server in
            let client = try await SocketClient(port: server.port)
            try await client.send("POST /small HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk)
            #expect(try await client.answer().status == 400)
            #expect(try await client.rest().isEmpty)
        }
    }

    @Test("A18: chunks without end stop at the endpoint's limit")
    func endlessChunks() async throws {
        try await withServer(router) { server in
            let client = try await SocketClient(port: server.port)
            try await client.send("POST /small HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
            let flood = Task {
                while true { try await client.send("400\r\n" + String(repeating: "x", count: 1024) + "\r\n") }
            }
            let answer = try await client.answer()
            #expect(answer.status == 413)
            #expect(answer.text.contains("M_TOO_LARGE"))
            _ = await flood.result
        }
    }

    @Test("A18: an announced body beyond the limit is refused before it comes")
    func announcedTooLarge() async throws {
        try await withServer(router) { server in
            let client = try await SocketClient(port: server.port)
            try await client.send("POST /small HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000000\r\n\r\n")
            #expect(try await client.answer().status == 413)
        }
    }

    @Test(
        "A18: too many or too large headers are 431",
        arguments: [
            String(repeating: "X: y\r\n", count: 200), "X: " + String(repeating: "y", count: 100_000) + "\r\n",
            (0..<90).map { "X\($0): \(String(repeating: "y", count: 1000))\r\n" }.joined(),
        ])
    func headers(_ headers: String) async throws {
        try await withServer(router) { server in
            let client = try await SocketClient(port: server.port)
            try await client.send("GET /hello HTTP/1.1\r\nHost: a\r\n" + headers + "\r\n")
            let answer = try await client.answer()
            #expect(answer.status == 431)
            #expect(try await client.rest().isEmpty)
        }
    }

    @Test("A18: a hundred thousand headers, and headers without end, end the connection")
    func floodOfHeaders() async throws {
        try await withServer(router) { server in
            for (line, count) in [("X: y\r\n", 100_000), ("X", 3_000_000), ("A:\r\n", 100_000)] {
                let client = try await SocketClient(port: server.port)
                let flood = Task {
                    try await client.send("GET /hello HTTP/1.1\r\nHost: a\r\n")
                    for _ in 0..<100 { try await client.send(String(repeating: line, count: count / 100)) }
                    try await client.send("\r\n\r\n")
                }
                // Who floods may see the connection reset before the answer.
                if let answer = try? await client.answer() { #expect(answer.status == 431 || answer.status == 400) }
                _ = try await client.rest()
                _ = await flood.result
            }
            let next = try await SocketClient(port: server.port)
            try await next.send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n")
            #expect(try await next.answer().text == "hello")
        }
    }

    @Test("A18: an endless request line ends")
    func endlessTarget() async throws {
        try await withServer(router) { server in
            let client = try await SocketClient(port: server.port)
            let flood = Task {
                try await client.send("GET /")
                while true { try await client.send(String(repeating: "a", count: 10_000)) }
            }
            #expect(try await client.answer().status >= 400)
            _ = await flood.result
        }
    }

    @Test("A16: a head that comes a byte at a time and a silent connection are closed")
    func slowHead() async throws {
        var limits = ServerLimits.patient
        limits.firstRequest = .milliseconds(200)
        try await withServer(router, limits: limits) { server in
            let silent = try await SocketClient(port: server.port)
            #expect(try await silent.rest().isEmpty)
            let slow = try await SocketClient(port: server.port)
            let drip = Task {
                for character in "GET /hello HTTP/1.1\r\nHost: " + String(repeating: "a", count: 1000) {
                    try await slow.send(String(character))
                    try await Task.sleep(for: .milliseconds(10))
                }
            }
            #expect(try await slow.rest().isEmpty)
            drip.cancel()
        }
    }

    @Test("A16: an idle connection is closed")
    func idle() async throws {
        var limits = ServerLimits.patient
        limits.idle = .milliseconds(200)
        try await withServer(router, limits: limits) { server in
            let client = try await SocketClient(port: server.port)
            try await client.send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n")
            #expect(try await client.answer().text == "hello")
            #expect(try await client.rest().isEmpty)
        }
    }

    @Test("A16: a body that comes too slowly is 408", arguments: [100, 100_000])
    func slowBody(_ length: Int) async throws {
        var limits = ServerLimits.patient
        limits.bodyGrace = .milliseconds(200)
        try await withServer(router, limits: limits) { server in
            let client = try await SocketClient(port: server.port)
            try await client.send("POST /length HTTP/1.1\r\nHost: a\r\nContent-Length: \(length)\r\n\r\n")
            let drip = Task {
                while true {
                    try await client.send("x")
                    try await Task.sleep(for: .milliseconds(20))
                }
            }
            #expect(try await client.answer().status == 408)
            #expect(try await client.rest().isEmpty)
            _ = await drip.result
        }
    }

    @Test("A16: a client that takes nothing of its answer loses the connection")
    func slowReader() async throws {
        var limits = ServerLimits.patient
        limits.write = .milliseconds(300)
        let (ends, continuation) = AsyncStream<Bool>.makeStream()
        let router = Router([
            Endpoint(.GET, "/endless", authentication: .none) { _ in
                Response(
                    body: .stream { writer in
                        do {
                            while true { try await writer.write(ByteBuffer(repeating: 7, count: 65536)) }
                        } catch {
                            continuation.yield(error is CancellationError)
                            throw error
                        }
                    })
            }
        ])
        try await withServer(router, limits: limits) { server in
            let client = try await SocketClient(port: server.port)
            try await client.channel.setOption(.autoRead, value: false).get()
            try await client.send("GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
            var iterator = ends.makeAsyncIterator()
            #expect(await iterator.next() == true)
        }
    }

    @Test("connections beyond the limit of a server are closed at once")
    func tooManyConnections() async throws {
        var limits = ServerLimits.patient
        limits.connections = 2
        try await withServer(router, limits: limits) { server in
            var clients: [SocketClient] = []
            for _ in 0..<2 {
                let client = try await SocketClient(port: server.port)
                try await client.send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n")
                #expect(try await client.answer().text == "hello")
                clients.append(client)
            }
            let third = try await SocketClient(port: server.port)
            #expect(try await third.rest().isEmpty)
            await clients.removeFirst().close()
            // The place is free when the server has seen the other go.
            var answer: SocketClient.Answer?
            while answer == nil {
                let next = try await SocketClient(port: server.port)
                try? await next.send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n")
                answer = try? await next.answer()
            }
            #expect(answer?.text == "hello")
        }
    }

    @Test("pipelined requests of a client that doesn't read are not answered without bound")
    func pipelinedFlood() async throws {
        var limits = ServerLimits.patient
        limits.write = .milliseconds(300)
        let router = Router([
            Endpoint(.GET, "/large", authentication: .none) { _ in
                Response(body: .bytes([UInt8](repeating: 7, count: 200_000)))
            }
        ])
        try await withServer(router, limits: limits) { server in
            let client = try await SocketClient(port: server.port)
            try await client.channel.setOption(.autoRead, value: false).get()
            let flood = Task {
                while true {
                    try await client.send(String(repeating: "GET /large HTTP/1.1\r\nHost: a\r\n\r\n", count: 100))
                }
            }
            try await client.channel.closeFuture.get()
            _ = await flood.result
        }
    }
}
