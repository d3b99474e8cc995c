import NIOCore
import NIOHTTP1
import NIOHTTP2
import NIOPosix
import NIOSSL

/// A client with one HTTP/2 connection over TLS.
final class HTTP2Client: Sendable {
    let channel: any Channel
    private let multiplexer: NIOHTTP2Handler.StreamMultiplexer

    init(port: Int, tls: @escaping @Sendable () throws -> NIOSSLClientHandler) async throws {
        let multiplexer = NIOLockedMultiplexer()
        channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let pipeline = channel.pipeline.syncOperations
                    try pipeline.addHandler(try tls())
                    multiplexer.value = try pipeline.configureHTTP2Pipeline(
                        mode: .client, connectionConfiguration: .init(), streamConfiguration: .init()
                    ) { stream in stream.close() }
                }
            }
            .connect(host: "127.0.0.1", port: port).get()
        guard let ready = multiplexer.value else { throw ChannelError.inappropriateOperationForState }
        self.multiplexer = ready
    }

    deinit { channel.close(promise: nil) }

    /// Written once, before the connection is handed out.
    private final class NIOLockedMultiplexer: @unchecked Sendable {
        var value: NIOHTTP2Handler.StreamMultiplexer?
    }

    func ask(_ method: HTTPMethod, _ path: String, body: String = "") async throws -> SocketClient.Answer {
        let answer = channel.eventLoop.makePromise(of: SocketClient.Answer.self)
        let created = channel.eventLoop.makePromise(of: (any Channel).self)
        multiplexer.createStreamChannel(promise: created) { stream in
            stream.eventLoop.makeCompletedFuture {
                let pipeline = stream.pipeline.syncOperations
                try pipeline.addHandler(HTTP2FramePayloadToHTTP1ClientCodec(httpProtocol: .https))
                try pipeline.addHandler(NIOHTTPClientResponseAggregator(maxContentLength: 10_000_000))
                try pipeline.addHandler(AnswerHandler(answer))
            }
        }
        let stream: any Channel
        do { stream = try await created.futureResult.get() } catch {
            answer.fail(error)
            throw error
        }
        var head = HTTPRequestHead(version: .init(major: 2, minor: 0), method: method, uri: path)
        head.headers = ["Host": "localhost"]
        stream.write(HTTPClientRequestPart.head(head), promise: nil)
        if !body.isEmpty {
            stream.write(HTTPClientRequestPart.body(.byteBuffer(ByteBuffer(string: body))), promise: nil)
        }
        stream.writeAndFlush(HTTPClientRequestPart.end(nil), promise: nil)
        return try await answer.futureResult.get()
    }

    private final class AnswerHandler: ChannelInboundHandler {
        typealias InboundIn = NIOHTTPClientResponseFull
        private var answer: EventLoopPromise<SocketClient.Answer>?

        init(_ answer: EventLoopPromise<SocketClient.Answer>) { self.answer = answer }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            let full = unwrapInboundIn(data)
            answer.take()?.succeed(
                .init(
                    status: Int(full.head.status.code), headers: full.head.headers.map { ($0.name, $0.value) },
                    body: full.body.map { Array($0.readableBytesView) } ?? []))
        }

        func channelInactive(context: ChannelHandlerContext) { answer.take()?.fail(ChannelError.eof) }

        func errorCaught(context: ChannelHandlerContext, error: any Error) { answer.take()?.fail(error) }
    }
}
