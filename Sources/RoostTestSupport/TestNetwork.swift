import Homeserver
import HomeserverHTTP
import MatrixCore
import NIOHTTP1
import NIOPosix
import Synchronization

/// A network of homeservers within the process: what one sends, the other's router answers. It can be cut, lose answers, and tell what
/// was asked.
public final class TestNetwork: Sendable {
    /// A request that went over the network.
    public struct Exchange: Sendable {
        public let from: ServerName
        public let to: ServerName
        public let method: String
        public let target: String
    }

    private struct State {
        var routers: [ServerName: Router] = [:]
        var cut: Set<ServerName> = []
        var losesAnswers: Set<ServerName> = []
        var exchanges: [Exchange] = []
        var forged: [@Sendable (ServerRequest) -> ServerResponse?] = []
        var made = 0
    }

    /// The lock protects the table.
    private let state = Mutex(State())

    public init() {}

    /// How a server of that name reaches the others.
    public func transport(of name: ServerName) -> any FederationTransport { Transport(network: self, name: name) }

    public func connect(_ homeserver: Homeserver) {
        let router = Router(FederationAPI(homeserver).endpoints, admit: ClientAPI(homeserver).gate)
        state.withLock { $0.routers[homeserver.configuration.serverName] = router }
    }

    /// Takes servers off the network, or puts them back.
    public func cut(_ servers: ServerName...) { state.withLock { $0.cut.formUnion(servers) } }
    public func mend(_ servers: ServerName...) { state.withLock { $0.cut.subtract(servers) } }

    /// Has answers of a server get lost: it does what it is asked, and nobody hears of it.
    public func loseAnswers(of server: ServerName, _ isLost: Bool = true) {
        state.withLock { state in
            if isLost { state.losesAnswers.insert(server) } else { state.losesAnswers.remove(server) }
        }
    }

    /// Answers requests in the place of servers; nil for those that are to go on.
    public func forge(_ answer: @escaping @Sendable (ServerRequest) -> ServerResponse?) {
        state.withLock { $0.forged.append(answer) }
    }

    public var exchanges: [Exchange] { state.withLock { $0.exchanges } }

    fileprivate func send(_ request: ServerRequest, from origin: ServerName) async throws -> ServerResponse {
        let (router, isCut, losesAnswers, number, forged) = state.withLock { state in
            state.made += 1
            state.exchanges.append(
                Exchange(from: origin, to: request.destination, method: request.method, target: request.target))
            return (
                state.routers[request.destination], !state.cut.isDisjoint(with: [origin, request.destination]),
                state.losesAnswers.contains(request.destination), state.made, state.forged
            )
        }
        for forge in forged { if let answer = forge(request) { return answer } }
        guard let router, !isCut else { throw TransportError(.unreachable, "the network is cut") }
        var headers = HTTPHeaders()
        for (name, value) in request.headers { headers.add(name: name, value: value) }
        let answer = await router.respond(
            to: Request(
                HTTPMethod(rawValue: request.method), request.target, headers: headers,
                body: RequestBody(bytes: request.body ?? []), id: "network-\(number)",
                eventLoop: MultiThreadedEventLoopGroup.singleton.next()))
        if losesAnswers { throw TransportError(.timedOut, "the answer got lost") }
        guard case .bytes(let bytes) = answer.body else {
            return ServerResponse(status: Int(answer.status.code), body: [])
        }
        guard bytes.count <= request.mostBytes else { throw TransportError(.unusable, "the answer is too large") }
        return ServerResponse(
            status: Int(answer.status.code), headers: answer.headers.map { ($0.name, $0.value) }, body: bytes)
    }

    private struct Transport: FederationTransport {
        let network: TestNetwork
        let name: ServerName

        func send(_ request: ServerRequest) async throws -> ServerResponse {
            try await network.send(request, from: name)
        }
        func get(_ url: String, timeout: Int64, mostBytes: Int) async throws -> ServerResponse {
            throw TransportError(.unreachable, "there is no web here")
        }

        func close() async {}
    }
}
