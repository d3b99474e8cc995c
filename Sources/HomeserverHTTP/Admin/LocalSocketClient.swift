import Homeserver
import MatrixCore
import NIOCore
import NIOHTTP1
import NIOPosix

/// Asks the server that runs on this machine, through its local socket.
public struct LocalSocketClient: Sendable {
    private let path: String

    public init(path: String) {
        self.path = path
    }

    /// Answers are small: lists of all accounts at most.
    private static let maximumAnswer = 256 * 1024 * 1024

    /// Sends one request.
    ///
    /// - Returns: nil when nobody listens on the socket: no server runs.
    public func send(_ method: HTTPMethod, _ target: String, body: [UInt8]) async throws -> (
        status: Int, body: [UInt8]
    )? {
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let answer = loop.makePromise(of: (status: Int, body: [UInt8]).self)
        let channel: any Channel
        do {
            channel = try await ClientBootstrap(group: loop)
                .channelInitializer { channel in
                    channel.eventLoop.makeCompletedFuture {
                        let pipeline = channel.pipeline.syncOperations
                        try pipeline.addHTTPClientHandlers()
                        try pipeline.addHandler(NIOHTTPClientResponseAggregator(maxContentLength: Self.maximumAnswer))
                        try pipeline.addHandler(AnswerHandler(answer))
                    }
                }
                .connect(unixDomainSocketPath: path).get()
        } catch {
            answer.fail(error)
            _ = try? await answer.futureResult.get()
            return nil
        }
        var head = HTTPRequestHead(version: .http1_1, method: method, uri: target)
        head.headers = [
            "Host": "localhost", "Connection": "close", "Content-Type": "application/json",
            "Content-Length": String(body.count),
        ]
        channel.write(HTTPClientRequestPart.head(head), promise: nil)
        channel.write(HTTPClientRequestPart.body(.byteBuffer(ByteBuffer(bytes: body))), promise: nil)
        channel.writeAndFlush(HTTPClientRequestPart.end(nil), promise: nil)
        return try await answer.futureResult.get()
    }

    private final class AnswerHandler: ChannelInboundHandler {
        typealias InboundIn = NIOHTTPClientResponseFull

        private var answer: EventLoopPromise<(status: Int, body: [UInt8])>?

        init(_ answer: EventLoopPromise<(status: Int, body: [UInt8])>) {
            self.answer = answer
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            let full = unwrapInboundIn(data)
            answer.take()?.succeed((Int(full.head.status.code), full.body.map { Array($0.readableBytesView) } ?? []))
            context.close(promise: nil)
        }

        func channelInactive(context: ChannelHandlerContext) {
            answer.take()?.fail(ChannelError.eof)
        }

        func errorCaught(context: ChannelHandlerContext, error: any Error) {
            answer.take()?.fail(error)
            context.close(promise: nil)
        }
    }
}
