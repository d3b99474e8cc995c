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
        denied: [AddressRange] = [], trusts: Bool = true, router: Router? = nil, addresses: [String: String] = [:],
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
        try await withServer(router ?? self.router, tls: files) { server in
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
        try await client.send(
            "GET", target, [], nil, to: location, until: .now() + .milliseconds(timeout), mostBytes: mostBytes)
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
                until: .now() + .seconds(60), mostBytes: 100)
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

    @Test("A24 a well-known document that redirects to an address that is denied is none, however it is spelled")
    func redirected() async throws {
        let places = [
            "https://127.0.0.2:PORT/document", "https://denied.example:PORT/document", "//127.0.0.2:PORT/document",
            "https://[::ffff:127.0.0.2]:PORT/document", "/again",
        ]
        for place in places {
            let router = Router([
                Endpoint(.GET, "/.well-known/matrix/server", authentication: .none) { request in
                    let port = request.headers.first(name: "Host")?.split(separator: ":").last ?? ""
                    return Response(
                        status: .found, headers: ["Location": place.replacing("PORT", with: port)])
                },
                Endpoint(.GET, "/again", authentication: .none) { request in
                    let port = request.headers.first(name: "Host")?.split(separator: ":").last ?? ""
                    return Response(status: .found, headers: ["Location": "https://127.0.0.2:\(port)/document"])
                },
                Endpoint(.GET, "/document", authentication: .none) { _ in .json(["m.server": "inside.example:1"]) },
            ])
            try await withClient(
                denied: [AddressRange("127.0.0.2/32")!, AddressRange("::ffff:127.0.0.2/128")!], router: router,
                addresses: ["localhost": "127.0.0.1", "denied.example": "127.0.0.2"]
            ) { client, port in
                let found = try await WellKnownReader(client: client, port: port).read("localhost")
                #expect(found == nil, "\(place)")
            }
        }
        // Where nothing is denied, the same way leads there.
        let router = Router([
            Endpoint(.GET, "/.well-known/matrix/server", authentication: .none) { _ in
                Response(status: .found, headers: ["Location": "/document"])
            },
            Endpoint(.GET, "/document", authentication: .none) { _ in .json(["m.server": "inside.example:1"]) },
        ])
        try await withClient(router: router, addresses: ["localhost": "127.0.0.1"]) { client, port in
            let found = try await WellKnownReader(client: client, port: port).read("localhost")
            #expect(found?.server == ServerName(unchecked: "inside.example:1"))
        }
    }

    @Test("A24 A27 a well-known document that names no server, or a line of its own, is none")
    func injectedDelegation() async throws {
        for name in [
            "evil.example\r\nHost: x", "evil.example/path", "user@evil.example", "", "evil.example:99999", "a b",
        ] {
            let router = Router([
                Endpoint(.GET, "/.well-known/matrix/server", authentication: .none) { _ in
                    .json(["m.server": .string(name)])
                }
            ])
            try await withClient(router: router, addresses: ["localhost": "127.0.0.1"]) { client, port in
                let found = try await WellKnownReader(client: client, port: port).read("localhost")
                #expect(found == nil, "\(name)")
            }
        }
    }

    @Test("A27 what others name becomes no line of a request")
    func injected() async throws {
        let seen = Seen()
        let router = Router([
            Endpoint(.GET, "/hello", authentication: .none) { request in
                seen.add("\(request.headers)")
                return .text("hello")
            }
        ])
        try await withClient(router: router) { client, port in
            let place = location("127.0.0.1", port)
            for target in [
                "/hello HTTP/1.1\r\nX: y\r\n\r\nGET /hello", "/hello\nX: y", "/hello x", "/h\u{0}", "/hällo",
            ] {
                await #expect(throws: (any Error).self) { try await get(client, target, at: place) }
            }
            var other = place
            other.host = "a\r\nX: y"
            await #expect(throws: (any Error).self) { try await get(client, "/hello", at: other) }
            await #expect(throws: (any Error).self) {
                try await client.send(
                    "GET", "/hello", [("Authorization", "a\r\nX: y")], nil, to: place, until: .now() + .seconds(60),
                    mostBytes: 100)
            }
            #expect(seen.all == [])
            let right = try await get(client, "/hello", at: place)
            #expect(right.status == 200)
            #expect(seen.all.count == 1)
        }
        // Names with line breaks are none to begin with, and segments of paths are encoded.
        for name in ["evil.example\r\nX: y", "evil.example\n", "\u{0}", "evil example"] {
            #expect(ServerName(name) == nil)
        }
    }

    private final class Seen: Sendable {
        private let list = Mutex<[String]>([])
        func add(_ text: String) { list.withLock { $0.append(text) } }
        var all: [String] { list.withLock { $0 } }
    }

    @Test(
        "A16 who holds up all connections to one place, or its name, holds up nobody beyond their time, and no other place"
    )
    func heldUp() async throws {
        try await withClient(addresses: ["localhost": "127.0.0.1", "other.example": "127.0.0.1"]) { client, port in
            let place = location("127.0.0.1", port)
            // Requests that never end, more than there are connections.
            let kinds = await withTaskGroup(of: TransportError.Kind?.self) { group in
                for _ in 0..<8 {
                    group.addTask {
                        do {
                            _ = try await get(client, "/endless", at: place, timeout: 1_000)
                            return nil
                        } catch { return (error as? TransportError)?.kind }
                    }
                }
                // Another place, at the same address, answers meanwhile.
                group.addTask {
                    let answer = try? await get(client, "/hello", at: location("localhost", port))
                    return answer?.status == 200 ? .timedOut : nil
                }
                return await group.reduce(into: []) { $0.append($1) }
            }
            // Those that got none of the six connections say nothing of the place.
            #expect(kinds.count == 9 && kinds.allSatisfy { $0 == .timedOut || $0 == .busy })
            #expect(kinds.count { $0 == .timedOut } >= 7)
            let next = try await get(client, "/hello", at: place)
            #expect(next.status == 200)
        }
        // A name that nobody answers for.
        let client = try OutgoingClient(
            settings: .init(denied: []),
            resolver: NameResolver(
                addresses: { _ in
                    try await Task.sleep(for: .seconds(3_600))
                    return []
                }, services: { _ in [] }))
        do {
            _ = try await get(client, "/", at: location("slow.example", 1), timeout: 50)
            Issue.record("a name that leads nowhere was found")
        } catch let error as TransportError { #expect(error.kind == .timedOut) }
        await client.close()
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
