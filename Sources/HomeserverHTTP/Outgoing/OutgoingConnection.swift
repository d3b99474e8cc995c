import Homeserver
import NIOCore
import NIOHTTP1

/// A request on its way over a connection, and where its answer goes.
struct OutgoingExchange: Sendable {
    var head: HTTPRequestHead
    var body: [UInt8]?
    var mostBytes: Int
    var sink: (any AnswerSink)?
    var deadline: NIODeadline
    var answer: EventLoopPromise<OutgoingAnswer>
}

struct OutgoingAnswer: Sendable {
    var response: ServerResponse
    /// Whether the connection is good for another request.
    var isReusable: Bool
}

/// Why an exchange failed, and whether the other side can't have begun to answer it.
struct ExchangeFailure: Error {
    var reason: TransportError
    var nothingCame: Bool
    /// What the one threw for whom the answer was.
    var cause: (any Error)?
}

/// Carries out one exchange after another on a connection to another server. Lives on the connection's event loop.
final class OutgoingConnectionHandler: ChannelDuplexHandler {
    typealias InboundIn = HTTPClientResponsePart
    typealias OutboundIn = OutgoingExchange
    typealias OutboundOut = HTTPClientRequestPart

    private struct Running {
        var exchange: OutgoingExchange
        var deadline: Scheduled<Void>
        var head: HTTPResponseHead?
        var body: [UInt8] = []
        var count = 0

        /// Takes the body of the answer.
        var sink: (any AnswerSink)? { head?.status == .ok ? exchange.sink : nil }

        var response: ServerResponse {
            ServerResponse(
                status: Int(head?.status.code ?? 0), headers: head?.headers.map { ($0.name, $0.value) } ?? [],
                body: body)
        }
    }

    private var running: Running?

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        let exchange = unwrapOutboundIn(data)
        let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
        let deadline = context.eventLoop.scheduleTask(deadline: exchange.deadline) {
            let (handler, context) = bound.value
            handler.fail(TransportError(.timedOut, "it took too long to answer"), context)
        }
        running = Running(exchange: exchange, deadline: deadline)
        context.write(wrapOutboundOut(.head(exchange.head)), promise: nil)
        if let body = exchange.body, !body.isEmpty {
            context.write(
                wrapOutboundOut(.body(.byteBuffer(context.channel.allocator.buffer(bytes: body)))), promise: nil)
        }
        context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: promise)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard running != nil else {
            // Nobody asked.
            context.close(promise: nil)
            return
        }
        switch unwrapInboundIn(data) {
        case .head(let head):
            guard head.status.code >= 200 else { return }
            running?.head = head
            if let length = head.headers.first(name: "Content-Length").flatMap({ Int($0) }),
                length > running?.exchange.mostBytes ?? 0
            {
                return fail(TransportError(.unusable, "the answer of \(length) bytes is too large"), context)
            }
            pour(context) { sink, running in try sink.begin(running.response) }
        case .body(let part):
            guard let most = running?.exchange.mostBytes else { return }
            running?.count += part.readableBytes
            guard let count = running?.count, count <= most else {
                return fail(TransportError(.unusable, "the answer is larger than \(most) bytes"), context)
            }
            if running?.sink == nil {
                running?.body += part.readableBytesView
            } else {
                pour(context) { sink, _ in try part.withUnsafeReadableBytes { try sink.take($0) } }
            }
        case .end:
            guard let done = running, let head = done.head else { return }
            running = nil
            done.deadline.cancel()
            done.exchange.answer.succeed(OutgoingAnswer(response: done.response, isReusable: head.isKeepAlive))
        }
    }

    /// Hands something to the sink of the answer, if there is one. What it throws ends the exchange.
    private func pour(_ context: ChannelHandlerContext, _ body: (any AnswerSink, Running) throws -> Void) {
        guard let running, let sink = running.sink else { return }
        do { try body(sink, running) } catch {
            fail(TransportError(.unusable, "the answer can't be taken: \(error)"), because: error, context)
        }
    }

    func channelInactive(context: ChannelHandlerContext) {
        fail(TransportError(.unreachable, "it closed the connection without an answer"), context)
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        fail(TransportError(.unusable, "\(error)"), context)
    }

    private func fail(_ reason: TransportError, because cause: (any Error)? = nil, _ context: ChannelHandlerContext) {
        if let failed = running {
            running = nil
            failed.deadline.cancel()
            failed.exchange.answer.fail(
                ExchangeFailure(reason: reason, nothingCame: failed.head == nil, cause: cause))
        }
        context.close(promise: nil)
    }
}
