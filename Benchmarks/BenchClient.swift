import MatrixCore
import NIOCore
import NIOHTTP1
import NIOPosix

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

struct BenchFailure: Error, CustomStringConvertible {
    let what: String
    var description: String { what }
}

/// A client with a connection of its own: one request at a time, or a sync that is asked for again as soon as it is answered.
///
/// All but `room`, `userID`, `token` and `isSender`, which are set before they are used, is touched on the event loop only.
final class BenchClient: ChannelInboundHandler, @unchecked Sendable {
    typealias InboundIn = HTTPClientResponsePart
    static let loops = MultiThreadedEventLoopGroup(numberOfThreads: 1)

    /// What was answered, and when on the monotonic clock: from before the request was written until its last byte was here.
    struct Answer: Sendable {
        let status: Int
        let body: [UInt8]
        let sent: Double
        let received: Double
        var milliseconds: Double { (received - sent) * 1e3 }
    }

    var room = ""
    var userID = ""
    var token = ""
    /// Whether it sends what the others wait for.
    var isSender = false
    let loop: any EventLoop
    private let port: Int
    private var channel: (any Channel)!
    private var status = 0
    private var body: [UInt8] = []
    private var sent = 0.0
    private var answer: EventLoopPromise<Answer>?
    private var arrival: EventLoopPromise<Double>?
    private var isWaiting = false
    private var heard: ((JSONView, Double) -> Void)?

    init(port: Int, on loop: (any EventLoop)? = nil) async throws {
        self.port = port
        self.loop = loop ?? Self.loops.next()
        try await connect()
    }

    /// Another connection of the same user.
    func another(on loop: (any EventLoop)? = nil) async throws -> BenchClient {
        let client = try await BenchClient(port: port, on: loop ?? self.loop)
        (client.room, client.userID, client.token) = (room, userID, token)
        return client
    }

    private func connect() async throws {
        channel = try await ClientBootstrap(group: loop)
            .channelOption(.socketOption(.tcp_nodelay), value: 1)
            .channelInitializer { channel in
                channel.pipeline.addHTTPClientHandlers().flatMap { channel.pipeline.addHandler(self) }
            }
            .connect(host: "127.0.0.1", port: port).get()
    }

    /// A new account by open registration.
    static func registered(_ name: String, port: Int, on loop: (any EventLoop)? = nil) async throws -> BenchClient {
        let client = try await BenchClient(port: port, on: loop)
        let answer = try await client.ask(
            .POST, "/_matrix/client/v3/register",
            #"{"username":"\#(name)","password":"correct horse \#(name)","auth":{"type":"m.login.dummy"}}"#)
        client.token = answer["access_token"]?.string ?? ""
        client.userID = answer["user_id"]?.string ?? ""
        return client
    }

    /// - Throws: ``BenchFailure`` unless it is a good answer.
    @discardableResult
    func ask(_ method: HTTPMethod, _ path: String, _ body: String) async throws -> JSONView {
        let answer = try await exchange(method, path, body)
        guard answer.status == 200 else {
            throw BenchFailure(
                what: "\(method) \(path): \(answer.status) \(String(decoding: answer.body.prefix(300), as: UTF8.self))")
        }
        return try JSONDocument(parsing: answer.body, limits: .envelope).root
    }

    func exchange(
        _ method: HTTPMethod, _ path: String, _ body: String, authorization: String? = nil
    ) async throws -> Answer {
        // One connection waits; who waits on it asks by another.
        if isWaiting { throw BenchFailure(what: "the connection waits for a sync") }
        try await revive()
        return try await loop.flatSubmit { self.begin(method, path, body, authorization: authorization) }.get()
    }

    /// Connects anew if the server has closed the connection, which lay idle.
    func revive() async throws {
        if !channel.isActive { try await connect() }
    }

    /// Asks on a connection that is open; on the event loop.
    func begin(
        _ method: HTTPMethod, _ path: String, _ body: String, authorization: String? = nil
    ) -> EventLoopFuture<Answer> {
        let promise = loop.makePromise(of: Answer.self)
        guard channel.isActive, answer == nil else {
            promise.fail(BenchFailure(what: "the connection is closed or in use"))
            return promise.futureResult
        }
        answer = promise
        write(method, path, body, authorization)
        return promise.futureResult
    }

    private func write(_ method: HTTPMethod, _ path: String, _ body: String, _ authorization: String? = nil) {
        var head = HTTPRequestHead(version: .http1_1, method: method, uri: path)
        head.headers = ["Host": "localhost", "Content-Length": "\(body.utf8.count)"]
        if !body.isEmpty { head.headers.add(name: "Content-Type", value: "application/json") }
        if let authorization {
            head.headers.add(name: "Authorization", value: authorization)
        } else if !token.isEmpty {
            head.headers.add(name: "Authorization", value: "Bearer \(token)")
        }
        sent = Bench.wallSeconds()
        channel.write(HTTPClientRequestPart.head(head), promise: nil)
        if !body.isEmpty {
            channel.write(HTTPClientRequestPart.body(.byteBuffer(ByteBuffer(string: body))), promise: nil)
        }
        channel.writeAndFlush(HTTPClientRequestPart.end(nil), promise: nil)
    }

    /// Syncs for the first time, and from then on always again. The one who sends doesn't wait.
    ///
    /// - Parameter heard: gets each answer and the time of its last byte, on the event loop.
    func beginWaiting(_ heard: ((JSONView, Double) -> Void)? = nil) async throws {
        let first = try await ask(
            .GET, "/_matrix/client/v3/sync?filter=%7B%22room%22:%7B%22timeline%22:%7B%22limit%22:1%7D%7D%7D", "")
        guard let next = first["next_batch"]?.string else { throw BenchFailure(what: "a sync failed") }
        guard !isSender else { return }
        nonisolated(unsafe) let heard = heard
        try await loop.submit {
            self.isWaiting = true
            self.heard = heard
            self.wait(since: next)
        }.get()
    }

    private func wait(since: String) {
        write(.GET, "/_matrix/client/v3/sync?timeout=300000&since=\(since)", "")
    }

    /// When the next answer to a sync with an event in it is complete, in seconds of the monotonic clock.
    func expectAnswer() -> EventLoopFuture<Double> {
        let promise = loop.makePromise(of: Double.self)
        loop.execute { self.arrival = promise }
        return promise.futureResult
    }

    func close() async {
        try? await loop.submit {
            self.isWaiting = false
            self.heard = nil
        }.get()
        try? await channel.close().get()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head):
            status = Int(head.status.code)
            body.removeAll(keepingCapacity: true)
        case .body(let part): body.append(contentsOf: part.readableBytesView)
        case .end:
            let now = Bench.wallSeconds()
            guard isWaiting else {
                let promise = answer
                answer = nil
                promise?.succeed(Answer(status: status, body: body, sent: sent, received: now))
                return
            }
            let root = try? JSONDocument(parsing: body, limits: .envelope).root
            if root?["rooms"]?["join"] != nil {
                arrival?.succeed(now)
                arrival = nil
            }
            wait(since: root?["next_batch"]?.string ?? "")
            if let root { heard?(root, now) }
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        fail(error)
        context.close(promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) {
        fail(BenchFailure(what: "the server closed the connection"))
    }

    private func fail(_ error: any Error) {
        let (answer, arrival) = (answer, arrival)
        (self.answer, self.arrival) = (nil, nil)
        answer?.fail(error)
        arrival?.fail(error)
    }
}
