import Homeserver
import MatrixCore
import NIOCore
import NIOHTTP1
import NIOPosix
import NIOSSL
import RoostTestSupport
import Synchronization

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// Any number of other servers behind one TLS listener: their names are addresses of the loopback network, so nobody needs to look
/// them up, and what is asked of which is told by the `Host` header.
final class RemoteServers: Sendable {
    typealias Handler = @Sendable (ServerRequest) -> ServerResponse?

    /// The thread that they answer on.
    private static let loops = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let port: Int
    private let channel: any Channel
    private let answers: Answers

    /// Listens; answers nothing until there is ``answer(by:)``.
    init() async throws {
        let certificate = TestCertificates.first
        let context = try NIOSSLContext(
            configuration: .makeServerConfiguration(
                certificateChain: NIOSSLCertificate.fromPEMBytes(Array(certificate.certificate.utf8)).map {
                    .certificate($0)
                },
                privateKey: .privateKey(NIOSSLPrivateKey(bytes: Array(certificate.key.utf8), format: .pem))))
        let answers = Answers()
        self.answers = answers
        channel = try await ServerBootstrap(group: Self.loops)
            .serverChannelOption(.backlog, value: 1024)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    // All addresses of the loopback network are listened at, and no others answered.
                    guard channel.localAddress?.ipAddress?.hasPrefix("127.") == true else {
                        throw BenchFailure(what: "somebody from elsewhere")
                    }
                    try channel.pipeline.syncOperations.addHandler(NIOSSLServerHandler(context: context))
                    try channel.pipeline.syncOperations.configureHTTPServerPipeline()
                    try channel.pipeline.syncOperations.addHandler(RemoteConnection(answers))
                }
            }
            .bind(host: "0.0.0.0", port: 0).get()
        port = channel.localAddress!.port!
    }

    /// The name of the server of a number from 0 to 62,499.
    func name(_ number: Int) -> ServerName {
        ServerName(unchecked: "127.0.\(1 + number / 250).\(1 + number % 250):\(port)")
    }

    /// From now on requests are answered so; nil: never.
    func answer(by handler: @escaping Handler) { answers.handler.withLock { $0 = handler } }

    func close() async { try? await channel.close().get() }
}

private final class Answers: Sendable {
    let handler = Mutex<RemoteServers.Handler>({ _ in nil })
}

private final class RemoteConnection: ChannelInboundHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    private let answers: Answers
    private var head: HTTPRequestHead?
    private var body: [UInt8] = []

    init(_ answers: Answers) { self.answers = answers }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head):
            self.head = head
            body.removeAll(keepingCapacity: true)
        case .body(let part): body.append(contentsOf: part.readableBytesView)
        case .end:
            guard let head else { return }
            let request = ServerRequest(
                method: head.method.rawValue,
                destination: ServerName(unchecked: head.headers.first(name: "Host") ?? ""), target: head.uri,
                body: body.isEmpty ? nil : body, timeout: 0, mostBytes: 0)
            guard let answer = answers.handler.withLock({ $0 })(request) else { return }
            var answered = HTTPResponseHead(version: .http1_1, status: .init(statusCode: answer.status))
            answered.headers = ["Content-Type": "application/json", "Content-Length": "\(answer.body.count)"]
            context.write(wrapOutboundOut(.head(answered)), promise: nil)
            context.write(wrapOutboundOut(.body(.byteBuffer(ByteBuffer(bytes: answer.body)))), promise: nil)
            context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}

/// How the other servers ask the one under measure: over plain HTTP at the port that its clients use.
struct PlainTransport: FederationTransport {
    let client: BenchClient

    @concurrent func send(_ request: ServerRequest) async throws -> ServerResponse {
        let authorization = request.headers.first { $0.name == "Authorization" }?.value ?? ""
        let answer = try await client.exchange(
            .init(rawValue: request.method), request.target, String(decoding: request.body ?? [], as: UTF8.self),
            authorization: authorization)
        return ServerResponse(status: answer.status, body: answer.body)
    }

    @concurrent func get(
        _ url: String, into sink: (any AnswerSink)?, timeout: Int64, mostBytes: Int
    ) async throws -> ServerResponse {
        throw TransportError(.denied, "nothing but the server under measure is asked")
    }

    @concurrent func close() async {}
}

/// Milliseconds since 1970.
@Sendable func millisecondsNow() -> Int64 {
    var time = timespec()
    clock_gettime(CLOCK_REALTIME, &time)
    return Int64(time.tv_sec) * 1000 + Int64(time.tv_nsec) / 1_000_000
}
