import Homeserver
import Logging
import NIOCore
import NIOHTTP1
import NIOPosix
import NIOSSL
import Synchronization

/// Speaks HTTPS with servers that others name: connections are kept and bounded in number, and addresses that the settings deny are
/// refused after names were resolved, so that no name, redirection or rebinding leads there.
final class OutgoingClient: Sendable {
    struct Settings: Sendable {
        var denied: [AddressRange] = AddressRange.privateNetworks
        var verifiesCertificates = true
        /// Files with authorities to trust besides the system's.
        var authorities: [String] = []
    }

    private struct Place: Hashable {
        var endpoint: ServerLocation.Endpoint
        var certificateName: String
    }

    private struct Idle {
        var channel: any Channel
        var closing: Scheduled<Void>
    }

    /// Somebody who waits for a connection to a place.
    private struct Waiter {
        var number: Int
        var continuation: CheckedContinuation<Bool, Never>
        /// Ends the waiting.
        var timer: Scheduled<Void>
    }

    private struct State {
        var idle: [Place: [Idle]] = [:]
        var open: [Place: Int] = [:]
        var waiting: [Place: [Waiter]] = [:]
        var waiters = 0
        var isClosed = false
    }

    let group: any EventLoopGroup
    private let resolver: NameResolver
    private let settings: Settings
    private let tls: NIOSSLContext
    /// The lock protects the table of connections; nothing is awaited while it is held.
    private let state = Mutex(State())

    /// Connections to one place at a time; further requests wait for one.
    private static let mostConnections = 6
    private static let idleTime = TimeAmount.seconds(60)
    private static let connectTime = TimeAmount.seconds(5)
    /// Addresses of one name that are tried.
    private static let mostAddresses = 4

    /// - Throws: if a file of authorities can't be read.
    init(
        settings: Settings, resolver: NameResolver = .system(),
        group: any EventLoopGroup = MultiThreadedEventLoopGroup.singleton
    ) throws {
        self.settings = settings
        self.resolver = resolver
        self.group = group
        var configuration = TLSConfiguration.makeClientConfiguration()
        configuration.minimumTLSVersion = .tlsv12
        configuration.applicationProtocols = ["http/1.1"]
        if !settings.verifiesCertificates { configuration.certificateVerification = .none }
        configuration.additionalTrustRoots = try settings.authorities.map {
            .certificates(try NIOSSLCertificate.fromPEMFile($0))
        }
        if let file = SystemAuthorities.file { configuration.trustRoots = .file(file) }
        tls = try NIOSSLContext(configuration: configuration)
    }

    /// Reads what is at an address on the web.
    func get(
        _ url: OutgoingURL, into sink: (any AnswerSink)? = nil, timeout: Int64, mostBytes: Int
    ) async throws -> ServerResponse {
        let literal = IPAddress(url.host.filter { $0 != "[" && $0 != "]" })
        let host = url.port == 443 ? url.host : "\(url.host):\(url.port)"
        let location = ServerLocation(
            endpoints: [.init(host: literal?.description ?? url.host, port: url.port)], host: host,
            certificateName: literal?.description ?? url.host)
        return try await send(
            "GET", url.target, [], nil, to: location, until: .now() + .milliseconds(timeout), mostBytes: mostBytes,
            sink: sink)
    }

    /// Sends a request to a server that was found, at the first of its places that can be reached.
    func send(
        _ method: String, _ target: String, _ headers: [(name: String, value: String)], _ body: [UInt8]?,
        to location: ServerLocation, until deadline: NIODeadline, mostBytes: Int, sink: (any AnswerSink)? = nil
    ) async throws -> ServerResponse {
        // What others have named stands in these: nothing of it may begin a line of its own (A27).
        guard Self.isPlain(method), Self.isPlain(target), Self.isPlain(location.host) else {
            throw TransportError(.denied, "the request can't be written as HTTP")
        }
        var head = HTTPRequestHead(version: .http1_1, method: HTTPMethod(rawValue: method), uri: target)
        head.headers.add(name: "Host", value: location.host)
        head.headers.add(name: "User-Agent", value: "\(Version.name)/\(Version.number)")
        for (name, value) in headers { head.headers.add(name: name, value: value) }
        if let body { head.headers.add(name: "Content-Length", value: String(body.count)) }
        let question = Question(head: head, body: body, deadline: deadline, mostBytes: mostBytes, sink: sink)
        var failure = TransportError(.unreachable, "there is no place to connect to")
        for endpoint in location.endpoints {
            let place = Place(endpoint: endpoint, certificateName: location.certificateName)
            do {
                return try await exchange(question, at: place)
            } catch let error as ExchangeFailure {
                throw error.cause ?? error.reason
            } catch let error as TransportError {
                // Nothing was sent yet.
                failure = error
            }
        }
        throw failure
    }

    private static func isPlain(_ text: String) -> Bool { text.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7F } }

    func close() async {
        let idle = state.withLock { state in
            state.isClosed = true
            defer { state.idle = [:] }
            return state.idle.values.flatMap { $0 }
        }
        for connection in idle {
            connection.closing.cancel()
            try? await connection.channel.close()
        }
    }

    // MARK: - Connections

    private struct Question: Sendable {
        var head: HTTPRequestHead
        var body: [UInt8]?
        var deadline: NIODeadline
        var mostBytes: Int
        var sink: (any AnswerSink)?
    }

    private func exchange(_ question: Question, at place: Place) async throws -> ServerResponse {
        try await enter(place, question.deadline)
        defer { leave(place) }
        // One that lay idle may have been closed by the other side just now.
        while let channel = takeIdle(place) {
            do {
                return try await exchange(question, on: channel, place)
            } catch let failure as ExchangeFailure where failure.nothingCame && failure.reason.kind != .timedOut {
                continue
            }
        }
        return try await exchange(question, on: try await connect(place, question.deadline), place)
    }

    private func exchange(
        _ question: Question, on channel: any Channel, _ place: Place
    ) async throws -> ServerResponse {
        let promise = channel.eventLoop.makePromise(of: OutgoingAnswer.self)
        let exchange = OutgoingExchange(
            head: question.head, body: question.body, mostBytes: question.mostBytes, sink: question.sink,
            deadline: question.deadline, answer: promise)
        channel.writeAndFlush(exchange).whenFailure { error in
            promise.fail(
                ExchangeFailure(
                    reason: TransportError(.unreachable, "the connection broke: \(error)"), nothingCame: true))
        }
        let answer = try await withTaskCancellationHandler {
            try await promise.futureResult.get()
        } onCancel: {
            channel.close(promise: nil)
        }
        if answer.isReusable { keep(channel, place) } else { channel.close(promise: nil) }
        return answer.response
    }

    private func connect(_ place: Place, _ deadline: NIODeadline) async throws -> any Channel {
        let addresses: [IPAddress]
        if let literal = IPAddress(place.endpoint.host) {
            addresses = [literal]
        } else {
            addresses = try await resolve(place.endpoint.host, deadline)
        }
        let allowed = addresses.filter { address in !settings.denied.contains { $0.contains(address) } }
        guard !allowed.isEmpty else {
            throw TransportError(.denied, "\(place.endpoint.host) has no address that this server may connect to")
        }
        let tls = tls
        let verifies = settings.verifiesCertificates
        let name = IPAddress(place.certificateName) == nil ? place.certificateName : nil
        var failure = ""
        for address in allowed.prefix(Self.mostAddresses) {
            let left = deadline - NIODeadline.now()
            guard left > .zero else { throw TransportError(.timedOut, "it took too long to connect") }
            do {
                return try await ClientBootstrap(group: group).connectTimeout(min(Self.connectTime, left))
                    .channelOption(.socketOption(.tcp_nodelay), value: 1)
                    .channelInitializer { channel in
                        channel.eventLoop.makeCompletedFuture {
                            let pipeline = channel.pipeline.syncOperations
                            if let name, verifies {
                                try pipeline.addHandler(try CertificateNames.handler(tls, for: name))
                            } else {
                                try pipeline.addHandler(try NIOSSLClientHandler(context: tls, serverHostname: name))
                            }
                            try pipeline.addHTTPClientHandlers()
                            try pipeline.addHandler(OutgoingConnectionHandler())
                        }
                    }
                    .connect(host: address.description, port: place.endpoint.port).get()
            } catch {
                failure = "\(error)"
            }
        }
        throw TransportError(
            .unreachable, "nobody answers at \(place.endpoint.host), port \(place.endpoint.port): \(failure)")
    }

    /// The addresses of a host. Names of strangers may lead to servers of names that take their time.
    private func resolve(_ host: String, _ deadline: NIODeadline) async throws -> [IPAddress] {
        try await group.any().wait(until: deadline, "its name took too long to be looked up") { [resolver] in
            try await resolver.addresses(host)
        }
    }

    /// Waits until there may be one more connection to a place, as long as there is time for it: who holds all of them up holds up
    /// nobody beyond that (A16).
    private func enter(_ place: Place, _ deadline: NIODeadline) async throws {
        let loop = group.any()
        let number = state.withLock { state in
            state.waiters += 1
            return state.waiters
        }
        let mayGo = await withCheckedContinuation { continuation in
            let timer = loop.scheduleTask(deadline: deadline) { self.giveUp(number, place) }
            let isFree = state.withLock { state in
                guard state.open[place, default: 0] < Self.mostConnections else {
                    state.waiting[place, default: []].append(
                        Waiter(number: number, continuation: continuation, timer: timer))
                    return false
                }
                state.open[place, default: 0] += 1
                return true
            }
            if isFree {
                timer.cancel()
                continuation.resume(returning: true)
            }
        }
        guard mayGo else { throw TransportError(.busy, "all connections to it are busy") }
    }

    private func giveUp(_ number: Int, _ place: Place) {
        let waiter = state.withLock { state -> Waiter? in
            guard let index = state.waiting[place]?.firstIndex(where: { $0.number == number }) else { return nil }
            defer { if state.waiting[place]?.isEmpty == true { state.waiting[place] = nil } }
            return state.waiting[place]?.remove(at: index)
        }
        waiter?.continuation.resume(returning: false)
    }

    private func leave(_ place: Place) {
        let next: Waiter? = state.withLock { state in
            if var waiting = state.waiting[place], !waiting.isEmpty {
                let next = waiting.removeFirst()
                state.waiting[place] = waiting.isEmpty ? nil : waiting
                return next
            }
            let left = state.open[place, default: 1] - 1
            state.open[place] = left == 0 ? nil : left
            return nil
        }
        next?.timer.cancel()
        next?.continuation.resume(returning: true)
    }

    private func takeIdle(_ place: Place) -> (any Channel)? {
        let idle = state.withLock { state in
            let idle = state.idle[place]?.popLast()
            if state.idle[place]?.isEmpty == true { state.idle[place] = nil }
            return idle
        }
        idle?.closing.cancel()
        return idle?.channel
    }

    private func keep(_ channel: any Channel, _ place: Place) {
        guard channel.isActive else { return }
        let closing = channel.eventLoop.scheduleTask(in: Self.idleTime) { [weak self] in
            self?.drop(channel, place)
            channel.close(promise: nil)
        }
        let isKept = state.withLock { state in
            guard !state.isClosed else { return false }
            state.idle[place, default: []].append(Idle(channel: channel, closing: closing))
            return true
        }
        if !isKept {
            closing.cancel()
            channel.close(promise: nil)
        }
    }

    private func drop(_ channel: any Channel, _ place: Place) {
        state.withLock { state in
            state.idle[place]?.removeAll { $0.channel === channel }
            if state.idle[place]?.isEmpty == true { state.idle[place] = nil }
        }
    }
}
