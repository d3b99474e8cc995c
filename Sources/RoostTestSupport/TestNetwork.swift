import Homeserver
import HomeserverHTTP
import Logging
import MatrixCore
import NIOCore
import NIOHTTP1
import NIOPosix
import Synchronization

/// A network of homeservers within the process: what one sends, the other's router answers. It can be cut, lose answers, do worse
/// (see ``NetworkFaults``), and tell what was asked.
public final class TestNetwork: Sendable {
    /// A request that went over the network.
    public struct Exchange: Sendable {
        public let from: ServerName
        public let to: ServerName
        public let method: String
        public let target: String
        public let body: [UInt8]
    }

    /// One direction between two servers.
    private struct Direction: Hashable {
        let from: ServerName
        let to: ServerName
    }

    private struct State {
        var routers: [ServerName: Router] = [:]
        /// How often the server of a name was killed: what an earlier one is still doing doesn't count.
        var lives: [ServerName: Int] = [:]
        var cut: Set<ServerName> = []
        var cutDirections: Set<Direction> = []
        var losesAnswers: Set<ServerName> = []
        var faults: NetworkFaults?
        var exchanges: [Exchange] = []
        var watcher: (@Sendable (Exchange, String) -> Void)?
        var pages: [String: ServerResponse] = [:]
        var forged: [@Sendable (ServerRequest) -> ServerResponse?] = []
        var made = 0

        func isCut(from origin: ServerName, to server: ServerName) -> Bool {
            cut.contains(origin) || cut.contains(server) || cutDirections.contains(Direction(from: origin, to: server))
        }
    }

    /// The lock protects the table.
    private let state = Mutex(State())

    public init() {}

    /// How a server of that name reaches the others.
    public func transport(of name: ServerName) -> any FederationTransport {
        Transport(network: self, name: name, life: life(of: name))
    }

    public func connect(_ homeserver: Homeserver) {
        var silent = Logger(label: "http")
        silent.logLevel = .critical
        let router = Router(
            FederationAPI(homeserver).endpoints, logger: silent, admit: ClientAPI(homeserver).gate)
        state.withLock { $0.routers[homeserver.configuration.serverName] = router }
    }

    /// The server is gone without a word: what it was answering is not answered, and what it still sends doesn't arrive.
    public func kill(_ server: ServerName) {
        state.withLock { state in
            state.routers[server] = nil
            state.lives[server, default: 0] += 1
        }
    }

    private func life(of server: ServerName) -> Int { state.withLock { $0.lives[server, default: 0] } }

    /// Takes servers off the network, or puts them back.
    public func cut(_ servers: ServerName...) { state.withLock { $0.cut.formUnion(servers) } }
    public func mend(_ servers: ServerName...) { state.withLock { $0.cut.subtract(servers) } }

    /// Cuts one direction: what goes from one server to another doesn't arrive, neither requests nor answers.
    public func cut(from origin: ServerName, to server: ServerName) {
        state.withLock { _ = $0.cutDirections.insert(Direction(from: origin, to: server)) }
    }

    /// Has answers of a server get lost: it does what it is asked, and nobody hears of it.
    public func loseAnswers(of server: ServerName, _ isLost: Bool = true) {
        state.withLock { state in
            if isLost { state.losesAnswers.insert(server) } else { state.losesAnswers.remove(server) }
        }
    }

    /// Mends all that is cut, and has no answers get lost any more.
    public func mendAll() {
        state.withLock { state in
            state.cut = []
            state.cutDirections = []
            state.losesAnswers = []
        }
    }

    /// Has what goes over the network take time, from now on.
    public func use(_ faults: NetworkFaults) { state.withLock { $0.faults = faults } }

    /// Answers requests in the place of servers; nil for those that are to go on.
    public func forge(_ answer: @escaping @Sendable (ServerRequest) -> ServerResponse?) {
        state.withLock { $0.forged.append(answer) }
    }

    /// Has something lie at an address on the web.
    public func put(_ answer: ServerResponse, at url: String) { state.withLock { $0.pages[url] = answer } }

    fileprivate func page(at url: String) -> ServerResponse? { state.withLock { $0.pages[url] } }

    /// Has each request told when it has come to an end: the status of the answer, or why there is none.
    public func watch(_ watcher: @escaping @Sendable (Exchange, String) -> Void) {
        state.withLock { $0.watcher = watcher }
    }

    public var exchanges: [Exchange] { state.withLock { $0.exchanges } }

    // MARK: - On the way

    fileprivate func send(_ request: ServerRequest, from origin: ServerName, life: Int) async throws -> ServerResponse {
        let exchange = Exchange(
            from: origin, to: request.destination, method: request.method, target: request.target,
            body: request.body ?? [])
        let (faults, watcher, isAlive) = state.withLock { state in
            let isAlive = state.lives[origin, default: 0] == life
            if isAlive { state.exchanges.append(exchange) }
            return (state.faults, state.watcher, isAlive)
        }
        guard isAlive else { throw TransportError(.unreachable, "the server that asks is gone") }
        do {
            let answer: ServerResponse
            if let faults {
                answer = try await faults.carry(request) { try await self.deliver(request, from: origin) }
            } else {
                answer = try await deliver(request, from: origin)
            }
            watcher?(exchange, "\(answer.status)")
            return answer
        } catch {
            watcher?(exchange, "\(error)")
            throw error
        }
    }

    /// Brings a request to its destination, and the answer back.
    private func deliver(_ request: ServerRequest, from origin: ServerName) async throws -> ServerResponse {
        let (router, isCut, number, forged, life) = state.withLock { state in
            state.made += 1
            return (
                state.routers[request.destination], state.isCut(from: origin, to: request.destination), state.made,
                state.forged, state.lives[request.destination, default: 0]
            )
        }
        guard !isCut else { throw TransportError(.unreachable, "the network is cut") }
        for forge in forged { if let answer = forge(request) { return try Self.pour(answer, into: request.sink) } }
        guard let router else { throw TransportError(.unreachable, "nobody is there") }
        var headers = HTTPHeaders()
        for (name, value) in request.headers { headers.add(name: name, value: value) }
        let answer = await router.respond(
            to: Request(
                HTTPMethod(rawValue: request.method), request.target, headers: headers,
                body: RequestBody(bytes: request.body ?? []), id: "network-\(number)",
                eventLoop: MultiThreadedEventLoopGroup.singleton.next()))
        let isLost = state.withLock { state in
            state.losesAnswers.contains(request.destination)
                || state.isCut(from: request.destination, to: origin)
                || state.lives[request.destination, default: 0] != life
        }
        if isLost { throw TransportError(.timedOut, "the answer got lost") }
        let bytes: [UInt8]
        switch answer.body {
        case .bytes(let body): bytes = body
        case .stream(_, let make):
            let collector = Collector()
            try await make(collector)
            bytes = collector.bytes.withLock { $0 }
        case .none, .file: return ServerResponse(status: Int(answer.status.code), body: [])
        }
        guard bytes.count <= request.mostBytes else { throw TransportError(.unusable, "the answer is too large") }
        return try Self.pour(
            ServerResponse(
                status: Int(answer.status.code), headers: answer.headers.map { ($0.name, $0.value) }, body: bytes),
            into: request.sink)
    }

    /// Gives a good answer's body to a sink, in pieces as they come over a network.
    private static func pour(_ answer: ServerResponse, into sink: (any AnswerSink)?) throws -> ServerResponse {
        guard let sink, answer.status == 200 else { return answer }
        var rest = answer
        rest.body = []
        try sink.begin(rest)
        for start in stride(from: 0, to: answer.body.count, by: 1_000) {
            let piece = Array(answer.body[start..<min(start + 1_000, answer.body.count)])
            try piece.withUnsafeBytes { try sink.take($0) }
        }
        return rest
    }

    /// Takes what a router streams.
    private final class Collector: ResponseWriter {
        let bytes = Mutex<[UInt8]>([])

        func write(_ buffer: ByteBuffer) async throws { bytes.withLock { $0 += buffer.readableBytesView } }
    }

    private struct Transport: FederationTransport {
        let network: TestNetwork
        let name: ServerName
        let life: Int

        func send(_ request: ServerRequest) async throws -> ServerResponse {
            try await network.send(request, from: name, life: life)
        }
        func get(
            _ url: String, into sink: (any AnswerSink)?, timeout: Int64, mostBytes: Int
        ) async throws -> ServerResponse {
            guard let answer = network.page(at: url) else {
                throw TransportError(.unreachable, "there is nothing at \(url)")
            }
            return try TestNetwork.pour(answer, into: sink)
        }

        func close() async {}
    }
}
