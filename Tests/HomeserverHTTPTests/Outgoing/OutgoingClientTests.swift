import Glibc
import Homeserver
import MatrixCore
import NIOCore
import NIOHTTP1
import NIOPosix
import RoostTestSupport
import Synchronization
import Testing

@testable import HomeserverHTTP

@Suite("Speaking to other servers")
struct OutgoingClientTests {
    private let router = Router([
        Endpoint(.GET, "/hello", authentication: .none) { .text("hello \($0.headers.first(name: "Host") ?? "-")") },
        Endpoint(.PUT, "/echo", authentication: .none) { .json(try await $0.collect(upTo: 1 << 20)) },
        Endpoint(.GET, "/large", authentication: .none) { _ in
            Response(body: .bytes([UInt8](repeating: 7, count: 100_000)))
        },
        Endpoint(.GET, "/endless", authentication: .none) { _ in
            Response(
                body: .stream { writer in
                    // One byte after another, for longer than anybody waits.
                    for _ in 0..<10_000 {
                        try await writer.write(ByteBuffer(string: "x"))
                        try await Task.sleep(for: .milliseconds(20))
                    }
                })
        },
        Endpoint(.GET, "/moved", authentication: .none) { _ in
            Response(status: .found, headers: ["Location": "https://127.0.0.1/secret"])
        },
    ])

    /// A server with TLS and a client that trusts its authority; names lead where the test says.
    private func withClient(
        denied: [AddressRange] = [], trusts: Bool = true, addresses: [String: String] = [:],
        _ work: (OutgoingClient, Int) async throws -> Void
    ) async throws {
        let directory = TemporaryDirectory()
        let files = Listener.TLSFiles(
            certificate: "\(directory.path)/tls.crt", key: "\(directory.path)/tls.key")
        for (text, path) in [
            (TestCertificates.first.certificate, files.certificate), (TestCertificates.first.key, files.key),
        ] {
            let file = try #require(fopen(path, "w"))
            fputs(text, file)
            fclose(file)
        }
        try await withServer(router, tls: files) { server in
            let client = try OutgoingClient(
                settings: .init(denied: denied, authorities: trusts ? [files.certificate] : []),
                resolver: NameResolver(
                    addresses: { host in addresses[host].flatMap { IPAddress($0) }.map { [$0] } ?? [] },
                    services: { _ in [] }))
            try await work(client, server.port)
            await client.close()
        }
    }

    private func location(_ host: String, _ port: Int, certificate: String? = nil) -> ServerLocation {
        ServerLocation(
            endpoints: [.init(host: host, port: port)], host: "\(host):\(port)", certificateName: certificate ?? host)
    }

    private func get(
        _ client: OutgoingClient, _ target: String, at location: ServerLocation, timeout: Int64 = 60_000,
        mostBytes: Int = 1 << 20
    ) async throws -> ServerResponse {
        try await client.send("GET", target, [], nil, to: location, timeout: timeout, mostBytes: mostBytes)
    }

    @Test("requests go over TLS, one after another on a connection, with the right Host")
    func ask() async throws {
        try await withClient(addresses: ["localhost": "127.0.0.1"]) { client, port in
            for _ in 0..<3 {
                let answer = try await get(client, "/hello", at: location("localhost", port))
                #expect(String(decoding: answer.body, as: UTF8.self) == "hello localhost:\(port)")
            }
            let body = Array(#"{"a":1}"#.utf8)
            let echo = try await client.send(
                "PUT", "/echo", [("Content-Type", "application/json")], body, to: location("127.0.0.1", port),
                timeout: 60_000, mostBytes: 100)
            #expect(echo.body == body)
        }
    }

    @Test("a certificate that is not the server's, or of nobody that is trusted, ends the connection")
    func certificates() async throws {
        try await withClient(addresses: ["elsewhere.example": "127.0.0.1"]) { client, port in
            await #expect(throws: TransportError.self) {
                try await get(client, "/hello", at: location("elsewhere.example", port))
            }
        }
        try await withClient(trusts: false, addresses: ["localhost": "127.0.0.1"]) { client, port in
            await #expect(throws: TransportError.self) {
                try await get(client, "/hello", at: location("localhost", port))
            }
        }
    }

    @Test(
        "a certificate is good for its names, a star for one label",
        arguments: [
            ("a.example", "a.example", true), ("A.Example.", "a.example", true),
            ("*.example.org", "a.example.org", true),
            ("*.example.org", "a.b.example.org", false), ("*.example.org", "example.org", false),
            ("*.org", "example.org", false), ("a*.example.org", "ab.example.org", false), ("*", "localhost", false),
            ("b.example", "a.example", false), ("", "", false),
        ])
    func names(pattern: String, name: String, matches: Bool) {
        #expect(CertificateNames.matches(pattern, name) == matches)
    }

    @Test(
        "A24 no name, literal or spelling leads to an address that is denied",
        arguments: ["127.0.0.1", "::ffff:127.0.0.1", "::1", "localhost", "rebound.example", "mapped.example"])
    func denied(host: String) async throws {
        try await withClient(
            denied: AddressRange.privateNetworks,
            addresses: [
                "localhost": "127.0.0.1", "rebound.example": "127.0.0.1", "mapped.example": "::ffff:127.0.0.1",
            ]
        ) { client, port in
            do {
                _ = try await get(client, "/hello", at: location(host, port))
                Issue.record("\(host) was reached")
            } catch let error as TransportError {
                #expect(error.kind == .denied)
            }
        }
    }

    @Test("A24 a well-known document that redirects to an address that is denied is none")
    func redirected() async throws {
        try await withClient(
            denied: AddressRange.privateNetworks, addresses: ["open.example": "127.0.0.1"]
        ) { client, _ in
            let found = try await WellKnownReader(client: client).read("open.example")
            #expect(found == nil)
        }
    }

    @Test("A16 an answer that comes byte by byte, or is larger than it may be, is given up")
    func endless() async throws {
        try await withClient { client, port in
            do {
                _ = try await get(client, "/endless", at: location("127.0.0.1", port), timeout: 300)
                Issue.record("an endless answer ended")
            } catch let error as TransportError { #expect(error.kind == .timedOut) }
            do {
                _ = try await get(client, "/large", at: location("127.0.0.1", port), mostBytes: 1_000)
                Issue.record("a large answer was read")
            } catch let error as TransportError { #expect(error.kind == .unusable) }
            // The next one is none the worse.
            #expect(try await get(client, "/hello", at: location("127.0.0.1", port)).status == 200)
        }
    }
}
