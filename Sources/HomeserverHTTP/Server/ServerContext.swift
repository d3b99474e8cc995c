import Homeserver
import Logging
import NIOCore
import NIOHTTP1
import Synchronization

/// What all connections of a server share.
final class ServerContext: Sendable {
    let reply: @Sendable (Request) async -> Reply
    let limits: ServerLimits
    let trustedProxies: [AddressRange]
    let logger: Logger
    let requestIDs = RequestIDs()
    private let draining = Atomic(false)
    private let running = Atomic(0)
    /// Something comes when the last running request has ended, once the server is draining.
    private let noneRuns = AsyncStream<Void>.makeStream(bufferingPolicy: .bufferingNewest(1))

    init(
        reply: @escaping @Sendable (Request) async -> Reply, limits: ServerLimits,
        trustedProxies: [AddressRange], logger: Logger
    ) {
        self.reply = reply
        self.limits = limits
        self.trustedProxies = trustedProxies
        self.logger = logger
    }

    /// Whether the server stops: no connection takes another request.
    var isDraining: Bool { draining.load(ordering: .relaxed) }
    func drain() { draining.store(true, ordering: .sequentiallyConsistent) }

    func requestBegins() { running.wrappingAdd(1, ordering: .relaxed) }

    func requestEnds() {
        let left = running.wrappingSubtract(1, ordering: .sequentiallyConsistent).newValue
        if left == 0, draining.load(ordering: .sequentiallyConsistent) { noneRuns.continuation.yield() }
    }

    /// Waits until no request is being answered; called while draining, when few new ones begin.
    func waitUntilNoneRuns() async {
        var ends = noneRuns.stream.makeAsyncIterator()
        while running.load(ordering: .sequentiallyConsistent) > 0 {
            guard await ends.next() != nil else { return }
        }
    }

    /// Who sends a request: the peer, or whom a proxy of ours says it speaks for.
    ///
    /// Each proxy appends the address it was asked from, so the list is read from its end, until an address that isn't
    /// one of our proxies: everything before that is whatever the client cared to write.
    func client(of peer: Peer, _ headers: HTTPHeaders) -> ClientAddress {
        guard peer.isTrustedProxy else { return peer.address }
        var client = peer.address
        for entry in headers[canonicalForm: "X-Forwarded-For"].reversed() {
            guard let address = IPAddress(entry) else { break }
            client = ClientAddress(address)
            guard isTrusted(address) else { break }
        }
        return client
    }

    func isTrusted(_ address: IPAddress) -> Bool {
        trustedProxies.contains { $0.contains(address) }
    }
}

/// The other end of a connection, found out once.
struct Peer: Sendable {
    let address: ClientAddress
    let isTrustedProxy: Bool
    let served: Endpoint.APIs

    init(_ channel: any Channel, served: Endpoint.APIs, in server: ServerContext) {
        let ip = channel.remoteAddress?.ipAddress.flatMap { IPAddress($0) }
        address = ClientAddress(ip)
        // Whoever may open a Unix socket has been let in by the permissions of its file, as a proxy is meant to be.
        isTrustedProxy = ip.map { server.isTrusted($0) } ?? true
        self.served = served
    }

    /// The address whose connections are counted, if they are.
    var counted: IPAddress? {
        isTrustedProxy || address.ip?.isLoopback == true ? nil : address.networkKey
    }
}
