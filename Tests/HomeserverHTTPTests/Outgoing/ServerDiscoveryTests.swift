import Homeserver
import MatrixCore
import Synchronization
import Testing

@testable import HomeserverHTTP

/// Server-Server API, "Resolving server names", step by step.
@Suite("Finding servers")
struct ServerDiscoveryTests {
    private typealias Service = NameResolver.Service

    private func discovery(
        services: [String: [Service]] = [:], wellKnown: [String: String] = [:], asked: Questions = Questions(),
        now: @escaping @Sendable () -> Int64 = { 0 }
    ) -> ServerDiscovery {
        ServerDiscovery(
            resolver: NameResolver(
                addresses: { _ in [] },
                services: { name in
                    asked.add(name)
                    return services[name] ?? []
                }), now: now
        ) { host in
            asked.add("well-known " + host)
            return wellKnown[host].map { (ServerName(unchecked: $0), 3_600_000) }
        }
    }

    private final class Questions: Sendable {
        private let list = Mutex<[String]>([])
        func add(_ question: String) { list.withLock { $0.append(question) } }
        var all: [String] { list.withLock { $0 } }
    }

    private static let fed = Service(priority: 10, weight: 5, port: 4444, target: "fed.example.org", lifetime: 600)
    private static let old = Service(priority: 0, weight: 0, port: 5555, target: "old.example.org", lifetime: 600)

    @Test(
        "a name leads to one place, with the Host header and the certificate that belong to it",
        arguments: [
            // 1. Address literals, with and without a port.
            ("192.0.2.7", "192.0.2.7:8448", "192.0.2.7", "192.0.2.7"),
            ("192.0.2.7:80", "192.0.2.7:80", "192.0.2.7:80", "192.0.2.7"),
            ("[2001:db8::1]", "2001:db8::1:8448", "[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:443", "2001:db8::1:443", "[2001:db8::1]:443", "2001:db8::1"),
            // 2. A name with a port.
            ("port.example:1234", "port.example:1234", "port.example:1234", "port.example"),
            // 3. Delegation: to a literal, to a name with a port, to a name with records, of the old kind, without any.
            ("to-literal.example", "192.0.2.9:8448", "192.0.2.9", "192.0.2.9"),
            ("to-port.example", "other.example:99", "other.example:99", "other.example"),
            ("to-records.example", "fed.example.org:4444", "with-fed.example", "with-fed.example"),
            ("to-old.example", "old.example.org:5555", "with-old.example", "with-old.example"),
            ("to-plain.example", "plain.example:8448", "plain.example", "plain.example"),
            // 4 to 6. Records, of the old kind, none.
            ("with-fed.example", "fed.example.org:4444", "with-fed.example", "with-fed.example"),
            ("with-old.example", "old.example.org:5555", "with-old.example", "with-old.example"),
            ("plain.example", "plain.example:8448", "plain.example", "plain.example"),
        ])
    func steps(name: String, place: String, host: String, certificate: String) async throws {
        let found = try await discovery(
            services: [
                "_matrix-fed._tcp.with-fed.example": [Self.fed], "_matrix._tcp.with-fed.example": [Self.old],
                "_matrix._tcp.with-old.example": [Self.old],
            ],
            wellKnown: [
                "to-literal.example": "192.0.2.9", "to-port.example": "other.example:99",
                "to-records.example": "with-fed.example", "to-old.example": "with-old.example",
                "to-plain.example": "plain.example",
            ]
        ).location(of: ServerName(unchecked: name))
        #expect(found.endpoints.first.map { "\($0.host):\($0.port)" } == place)
        #expect(found.host == host)
        #expect(found.certificateName == certificate)
    }

    @Test("nobody is asked about names that say where they are")
    func explicit() async throws {
        let asked = Questions()
        let discovery = discovery(asked: asked)
        for name in ["192.0.2.7", "[::1]:443", "port.example:1234"] {
            _ = try await discovery.location(of: ServerName(unchecked: name))
        }
        #expect(asked.all == [])
    }

    @Test("of several records the lowest priority comes first, then the heaviest")
    func order() async throws {
        let found = try await discovery(services: [
            "_matrix-fed._tcp.many.example": [
                Service(priority: 20, weight: 9, port: 3, target: "c", lifetime: 600),
                Service(priority: 10, weight: 1, port: 2, target: "b", lifetime: 600),
                Service(priority: 10, weight: 7, port: 1, target: "a", lifetime: 600),
            ]
        ]).location(of: ServerName(unchecked: "many.example"))
        #expect(found.endpoints.map(\.port) == [1, 2, 3])
    }

    @Test("what was found is remembered for its time, and forgotten when it led nowhere")
    func remembered() async throws {
        let asked = Questions()
        let discovery = discovery(
            services: ["_matrix-fed._tcp.a.example": [Self.fed]], asked: asked, now: { 0 })
        let name = ServerName(unchecked: "a.example")
        for _ in 0..<3 { _ = try await discovery.location(of: name) }
        #expect(asked.all == ["well-known a.example", "_matrix-fed._tcp.a.example"])
        discovery.forget(name)
        _ = try await discovery.location(of: name)
        #expect(asked.all.count == 4)
    }

    @Test(
        "a redirection leads to HTTPS or nowhere",
        arguments: [
            ("/other", "first.example:443/other"), ("//second.example/x", "second.example:443/x"),
            ("https://third.example:99/y?z", "third.example:99/y?z"), ("https://third.example", "third.example:443/"),
            ("http://plain.example/", nil), ("file:///etc/passwd", nil), ("https://user@evil.example/", nil),
            ("https://evil.example/\r\nHost: x", nil), ("gopher://x", nil), ("https://", nil),
        ] as [(String, String?)])
    func redirections(location: String, leads: String?) {
        let start = OutgoingURL(host: "first.example", port: 443, target: "/.well-known/matrix/server")
        #expect(start.following(location).map { "\($0.host):\($0.port)\($0.target)" } == leads)
    }
}
