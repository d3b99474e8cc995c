import Homeserver
import MatrixCore
import Synchronization

/// Where a server is (Server-Server API, "Resolving server names").
struct ServerLocation: Sendable, Hashable {
    /// A place to connect to.
    struct Endpoint: Sendable, Hashable {
        /// An address literal or a name that has addresses.
        var host: String
        var port: Int
    }

    /// In the order in which they are to be tried.
    var endpoints: [Endpoint]
    /// The `Host` header.
    var host: String
    /// The name for which the certificate must be good; a literal for servers that are addresses.
    var certificateName: String
}

/// Finds servers by their names, in the order of the specification, and remembers what it found.
final class ServerDiscovery: Sendable {
    /// What a well-known document says; nil if there is none that counts.
    typealias WellKnown = @Sendable (_ host: String) async throws -> (server: ServerName, lifetime: Int64)?

    private let resolver: NameResolver
    private let wellKnown: WellKnown
    private let now: @Sendable () -> Int64

    private struct Known {
        var location: ServerLocation
        var until: Int64
    }

    private static let mostKnown = 10_000
    /// Milliseconds for which what was found is believed at most, and what wasn't.
    private static let longest: Int64 = 48 * 3_600_000
    private static let usual: Int64 = 24 * 3_600_000
    private static let withoutRecords: Int64 = 3_600_000
    private static let shortest: Int64 = 300_000

    /// The lock protects the table.
    private let known = Mutex<[ServerName: Known]>([:])

    init(resolver: NameResolver, now: @escaping @Sendable () -> Int64, wellKnown: @escaping WellKnown) {
        self.resolver = resolver
        self.now = now
        self.wellKnown = wellKnown
    }

    func location(of server: ServerName) async throws -> ServerLocation {
        let time = now()
        if let found = known.withLock({ $0[server] }), found.until > time { return found.location }
        let (location, lifetime) = try await find(server)
        known.withLock { known in
            if known.count >= Self.mostKnown { known = known.filter { $0.value.until > time } }
            if known.count >= Self.mostKnown { known.removeAll() }
            known[server] = Known(location: location, until: time + min(max(lifetime, Self.shortest), Self.longest))
        }
        return location
    }

    /// What was known of a server led nowhere.
    func forget(_ server: ServerName) { known.withLock { $0[server] = nil } }

    private func find(_ server: ServerName) async throws -> (ServerLocation, lifetime: Int64) {
        // Steps 1 and 2: address literals, and names with a port.
        if let location = Self.explicit(server) { return (location, Self.usual) }
        // Step 3: the well-known document.
        if let (delegated, lifetime) = try await wellKnown(server.host) {
            // 3.1 and 3.2.
            if let location = Self.explicit(delegated) { return (location, lifetime) }
            // 3.3 to 3.5.
            let (location, records) = try await byRecords(of: delegated.host)
            return (location, min(lifetime, records))
        }
        // Steps 4 to 6.
        return try await byRecords(of: server.host)
    }

    /// Where a name says itself where it is.
    private static func explicit(_ server: ServerName) -> ServerLocation? {
        let literal = server.isIPLiteral
        guard literal || server.port != nil else { return nil }
        let plain = literal ? server.host.filter { $0 != "[" && $0 != "]" } : server.host
        return ServerLocation(
            endpoints: [.init(host: plain, port: Int(server.port ?? 8448))], host: server.string,
            certificateName: plain)
    }

    private func byRecords(of host: String) async throws -> (ServerLocation, lifetime: Int64) {
        for service in ["_matrix-fed._tcp.", "_matrix._tcp."] {
            // A resolver that fails is no answer; the next step may still lead somewhere.
            let records: [NameResolver.Service]
            do { records = try await resolver.services(service + host) } catch let error as TransportError
                where error.kind == .busy
            { throw error } catch { continue }
            if records.isEmpty { continue }
            // RFC 2782: the lowest priority first; of equal ones the heavier first.
            let ordered = records.sorted { ($0.priority, $1.weight) < ($1.priority, $0.weight) }
            let endpoints = ordered.filter { $0.target != "." && !$0.target.isEmpty }.map {
                ServerLocation.Endpoint(host: $0.target, port: Int($0.port))
            }
            guard !endpoints.isEmpty else {
                throw TransportError(.unreachable, "\(host) says that it serves no Matrix")
            }
            let lifetime = ordered.map(\.lifetime).min() ?? 0
            return (ServerLocation(endpoints: endpoints, host: host, certificateName: host), lifetime * 1_000)
        }
        return (
            ServerLocation(endpoints: [.init(host: host, port: 8448)], host: host, certificateName: host),
            Self.withoutRecords
        )
    }
}

/// Reads `/.well-known/matrix/server` (Server-Server API, "Server discovery").
struct WellKnownReader: Sendable {
    let client: OutgoingClient
    /// The port of HTTPS; another one in tests.
    var port = 443

    private static let mostBytes = 50 * 1_024
    private static let timeout: Int64 = 10_000
    private static let mostRedirects = 5
    private static let usualLifetime: Int64 = 24 * 3_600_000

    /// What the document says, and for how many milliseconds; nil if there is none or it can't be read: then the name is looked
    /// for without.
    func read(_ host: String) async throws -> (server: ServerName, lifetime: Int64)? {
        var url = OutgoingURL(host: host, port: port, target: "/.well-known/matrix/server")
        for _ in 0...Self.mostRedirects {
            let answer: ServerResponse
            do {
                answer = try await client.get(url, timeout: Self.timeout, mostBytes: Self.mostBytes)
            } catch let error as TransportError where error.kind == .busy {
                throw error
            } catch {
                return nil
            }
            if (301...308).contains(answer.status), let place = answer.header("location") {
                guard let next = url.following(place) else { return nil }
                url = next
                continue
            }
            guard answer.status == 200, let document = try? JSONDocument(parsing: answer.body),
                let server = document.root["m.server"]?.string.flatMap({ ServerName($0) })
            else { return nil }
            return (server, Self.lifetime(answer.header("cache-control")))
        }
        return nil
    }

    private static func lifetime(_ header: String?) -> Int64 {
        for part in header?.lowercased().split(separator: ",") ?? [] {
            let words = part.split(separator: "=", maxSplits: 1).map { $0.filter { $0 != " " && $0 != "\"" } }
            if words.first == "no-store" || words.first == "no-cache" { return 0 }
            if words.first == "max-age", words.count == 2, let seconds = Int64(words[1]), seconds >= 0 {
                return min(seconds, usualLifetime) * 1_000
            }
        }
        return usualLifetime
    }
}

/// An address on the web that is reached by HTTPS.
struct OutgoingURL: Sendable, Hashable {
    var host: String
    var port: Int
    /// Path and query.
    var target: String

    /// Where a redirection leads; nil for other schemes and what is no URL.
    func following(_ location: String) -> OutgoingURL? {
        if location.hasPrefix("//") { return Self(absolute: "https:" + location) }
        if location.hasPrefix("/") { return OutgoingURL(host: host, port: port, target: location) }
        return Self(absolute: location)
    }

    init(host: String, port: Int, target: String) {
        self.host = host
        self.port = port
        self.target = target
    }

    init?(absolute text: String) {
        guard text.lowercased().hasPrefix("https://"), text.utf8.count <= 2_048 else { return nil }
        let rest = text.dropFirst("https://".count).prefix { $0 != "#" }
        let authority = rest.prefix { $0 != "/" && $0 != "?" }
        guard !authority.contains("@"), let name = ServerName(String(authority)) else { return nil }
        host = name.host
        port = Int(name.port ?? 443)
        let path = String(rest.dropFirst(authority.count))
        target = path.hasPrefix("/") ? path : "/" + path
        guard target.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else { return nil }
    }
}
