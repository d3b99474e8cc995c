import Glibc
import NIOCore
import NIOHTTP1
import NIOHTTP2
import NIOPosix
import NIOSSL
import RoostTestSupport
import Synchronization
import Testing

@testable import HomeserverHTTP

@Suite struct TLSTests {
    private let router = Router([
        Endpoint(.GET, "/hello", authentication: .none) { .text("hello \($0.headers.first(name: "Host") ?? "-")") },
        Endpoint(.POST, "/length", authentication: .none) { request in
            var length = 0
            for try await part in request.body { length += part.readableBytes }
            return .text("\(length)")
        },
        Endpoint(.GET, "/large", authentication: .none) { _ in
            Response(body: .bytes([UInt8](repeating: 7, count: 3_000_000)))
        },
        Endpoint(.POST, "/small", authentication: .none) { request in
            .text("\(try await request.collect(upTo: 10).count)")
        },
    ])

    /// A directory with a certificate and its key, gone after the test.
    private final class Files {
        let directory: String
        var tls: Listener.TLSFiles { .init(certificate: "\(directory)/tls.crt", key: "\(directory)/tls.key") }

        init(_ pair: (certificate: String, key: String)) {
            var template = Array("/tmp/roost-tls-XXXXXX".utf8CString)
            directory = mkdtemp(&template).map { String(cString: $0) } ?? ""
            replace(with: pair)
        }

        func replace(with pair: (certificate: String, key: String)) {
            write(pair.certificate, tls.certificate)
            write(pair.key, tls.key)
        }

        private func write(_ text: String, _ path: String) {
            guard let file = fopen(path, "w") else { return }
            fputs(text, file)
            fclose(file)
        }

        deinit {
            unlink(tls.certificate)
            unlink(tls.key)
            rmdir(directory)
        }
    }

    private static func client(_ protocols: [String], seen: @escaping @Sendable (NIOSSLCertificate) -> Void = { _ in })
        throws -> NIOSSLClientHandler
    {
        var configuration = TLSConfiguration.makeClientConfiguration()
        configuration.applicationProtocols = protocols
        return try NIOSSLClientHandler(
            context: NIOSSLContext(configuration: configuration), serverHostname: "localhost",
            customVerificationCallback: { certificates, promise in
                certificates.first.map(seen)
                promise.succeed(.certificateVerified)
            })
    }

    @Test("HTTP/1.1 over TLS")
    func http1() async throws {
        let files = Files(TestCertificates.first)
        try await withServer(router, tls: files.tls) { server in
            let client = try await SocketClient(port: server.port) { [try Self.client(["http/1.1"])] }
            try await client.send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n")
            #expect(try await client.answer().text == "hello a")
            try await client.send("GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            #expect(try await client.answer().body.count == 3_000_000)
            #expect(try await client.rest().isEmpty)
        }
    }

    @Test("changed certificates are taken up on demand; broken ones are refused and the old stays")
    func reload() async throws {
        let files = Files(TestCertificates.first)
        try await withServer(router, tls: files.tls) { server in
            func certificate() async throws -> NIOSSLCertificate? {
                let seen = Mutex<NIOSSLCertificate?>(nil)
                let box = Box(seen)
                let client = try await SocketClient(port: server.port) {
                    [try Self.client(["http/1.1"]) { certificate in box.value.withLock { $0 = certificate } }]
                }
                try await client.send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n")
                _ = try await client.answer()
                return box.value.withLock { $0 }
            }
            func parsed(_ pair: (certificate: String, key: String)) throws -> NIOSSLCertificate {
                try NIOSSLCertificate(bytes: Array(pair.certificate.utf8), format: .pem)
            }
            #expect(try await certificate() == parsed(TestCertificates.first))
            files.replace(with: TestCertificates.second)
            #expect(try await certificate() == parsed(TestCertificates.first))
            try server.reloadCertificates()
            #expect(try await certificate() == parsed(TestCertificates.second))
            files.replace(with: (TestCertificates.first.certificate, TestCertificates.second.key))
            #expect(throws: ListenerError.self) { try server.reloadCertificates() }
            #expect(try await certificate() == parsed(TestCertificates.second))
        }
    }

    private final class Box<Value: ~Copyable & Sendable>: Sendable {
        let value: Value
        init(_ value: consuming Value) { self.value = value }
    }

    @Test("a TLS handshake that doesn't come to its end is cut off")
    func slowHandshake() async throws {
        let files = Files(TestCertificates.first)
        var limits = ServerLimits.patient
        limits.firstRequest = .milliseconds(200)
        try await withServer(router, limits: limits, tls: files.tls) { server in
            let client = try await SocketClient(port: server.port)
            try? await client.send("\u{16}\u{3}\u{1}")
            #expect(try await client.rest().isEmpty)
        }
    }

    @Test("HTTP/2 answers several requests at a time on one connection, with bodies both ways")
    func http2() async throws {
        let files = Files(TestCertificates.first)
        try await withServer(router, tls: files.tls) { server in
            let client = try await HTTP2Client(port: server.port, tls: { try Self.client(["h2"]) })
            try await withThrowingTaskGroup(of: Void.self) { group in
                for index in 0..<20 {
                    group.addTask {
                        let answer = try await client.ask(.GET, "/hello")
                        #expect(answer.status == 200 && answer.text == "hello localhost")
                        let body = String(repeating: "x", count: 10_000 * index)
                        #expect(try await client.ask(.POST, "/length", body: body).text == "\(body.utf8.count)")
                    }
                }
                try await group.waitForAll()
            }
            #expect(try await client.ask(.GET, "/large").body.count == 3_000_000)
            #expect(try await client.ask(.POST, "/small", body: String(repeating: "x", count: 200_000)).status == 413)
            #expect(try await client.ask(.GET, "/hello", body: String(repeating: "x", count: 200_000)).status == 413)
            #expect(try await client.ask(.HEAD, "/hello").status == 200)
            #expect(try await client.ask(.GET, "/nothing").status == 404)
        }
    }

    @Test("an HTTP/2 answer that comes before the end of the body is not lost with it")
    func earlyAnswer() async throws {
        let files = Files(TestCertificates.first)
        try await withServer(router, tls: files.tls) { server in
            let client = try await HTTP2Client(port: server.port, tls: { try Self.client(["h2"]) })
            for _ in 0..<5 {
                #expect(
                    try await client.ask(.POST, "/small", body: String(repeating: "x", count: 3_000_000)).status == 413)
            }
            #expect(try await client.ask(.GET, "/hello").status == 200)
        }
    }

    @Test("A16: an HTTP/2 client that takes nothing of an answer loses the stream")
    func untakenStream() async throws {
        let files = Files(TestCertificates.first)
        var limits = ServerLimits.patient
        limits.write = .milliseconds(300)
        try await withServer(router, limits: limits, tls: files.tls) { server in
            let client = try await SocketClient(port: server.port) { [try Self.client(["h2"])] }
            func frame(_ type: UInt8, _ flags: UInt8, stream: UInt8, _ payload: [UInt8]) -> [UInt8] {
                [0, 0, UInt8(payload.count), type, flags, 0, 0, 0, stream] + payload
            }
            // The settings: a window of nothing. The head: GET, https, a path and an authority, as HPACK writes them.
            let head: [UInt8] = [0x82, 0x87, 0x04, 6] + Array("/hello".utf8) + [0x01, 1] + Array("a".utf8)
            try await client.send(
                Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8) + frame(4, 0, stream: 0, [0, 4, 0, 0, 0, 0])
                    + frame(1, 0x5, stream: 1, head))
            // Up to the frame that resets the stream; the answer's head may come before.
            var types: [UInt8] = []
            while types.last != 3 {
                let start = try await client.exactly(9)
                let length = Int(start[0]) << 16 | Int(start[1]) << 8 | Int(start[2])
                _ = try await client.exactly(length)
                types.append(start[3])
            }
            #expect(types.contains(1) && !types.contains(0))
        }
    }

    @Test("an HTTP/2 connection ends when the server shuts down")
    func http2Shutdown() async throws {
        let files = Files(TestCertificates.first)
        let server = try await HTTPServer.start(
            [Listener(.tcp(host: "127.0.0.1", port: 0), tls: files.tls, serves: .all)], limits: .patient,
            reply: router.reply)
        let client = try await HTTP2Client(port: server.port, tls: { try Self.client(["h2"]) })
        #expect(try await client.ask(.GET, "/hello").status == 200)
        await server.shutdown(within: .seconds(10))
        try await client.channel.closeFuture.get()
    }
}
