import Homeserver
import MatrixCore
import NIOCore

/// Reaches other servers over the network (Server-Server API, "Server discovery").
public final class NetworkTransport: FederationTransport {
    private let client: OutgoingClient
    private let discovery: ServerDiscovery

    /// - Throws: if a file of `federation.ca_certificates` can't be read.
    public convenience init(_ settings: Configuration.Federation, now: @escaping @Sendable () -> Int64) throws {
        try self.init(settings, now: now, resolver: .system())
    }

    init(
        _ settings: Configuration.Federation, now: @escaping @Sendable () -> Int64, resolver: NameResolver
    ) throws {
        let client = try OutgoingClient(
            settings: .init(
                denied: settings.ipDenylist ?? AddressRange.privateNetworks,
                verifiesCertificates: settings.verifyCertificates, authorities: settings.caCertificates),
            resolver: resolver)
        self.client = client
        let reader = WellKnownReader(client: client)
        discovery = ServerDiscovery(resolver: resolver, now: now) { try await reader.read($0) }
    }

    public func send(_ request: ServerRequest) async throws -> ServerResponse {
        let deadline = NIODeadline.now() + .milliseconds(request.timeout)
        let location = try await client.group.any().wait(until: deadline, "it took too long to be found") {
            [discovery] in try await discovery.location(of: request.destination)
        }
        do {
            return try await client.send(
                request.method, request.target, request.headers, request.body, to: location, until: deadline,
                mostBytes: request.mostBytes, sink: request.sink)
        } catch let error as TransportError {
            if error.kind == .unreachable, !Task.isCancelled { discovery.forget(request.destination) }
            throw error
        }
    }

    public func get(
        _ url: String, into sink: (any AnswerSink)?, timeout: Int64, mostBytes: Int
    ) async throws -> ServerResponse {
        guard let url = OutgoingURL(absolute: url) else { throw TransportError(.denied, "this is no HTTPS URL") }
        return try await client.get(url, into: sink, timeout: timeout, mostBytes: mostBytes)
    }

    public func close() async { await client.close() }
}
