import Homeserver
import NIOCore
import NIOHTTP1

/// A request on its way over a connection, and where its answer goes.
struct OutgoingExchange: Sendable {
    var head: HTTPRequestHead
    var body: [UInt8]?
    var mostBytes: Int
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
        var sent = false
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
                fail(TransportError(.unusable, "the answer of \(length) bytes is too large"), context)
            }
        case .body(var part):
            guard let most = running?.exchange.mostBytes, let bytes = part.readBytes(length: part.readableBytes) else {
                return
            }
            guard (running?.body.count ?? 0) + bytes.count <= most else {
                return fail(TransportError(.unusable, "the answer is larger than \(most) bytes"), context)
            }
            running?.body += bytes
        case .end:
            guard let done = running, let head = done.head else { return }
            running = nil
            done.deadline.cancel()
            let response = ServerResponse(
                status: Int(head.status.code), headers: head.headers.map { ($0.name, $0.value) }, body: done.body)
            done.exchange.answer.succeed(OutgoingAnswer(response: response, isReusable: head.isKeepAlive))
        }
    }

    func channelInactive(context: ChannelHandlerContext) {
        fail(TransportError(.unreachable, "it closed the connection without an answer"), context)
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        fail(TransportError(.unusable, "\(error)"), context)
    }

    private func fail(_ reason: TransportError, _ context: ChannelHandlerContext) {
        if let failed = running {
            running = nil
            failed.deadline.cancel()
            failed.exchange.answer.fail(ExchangeFailure(reason: reason, nothingCame: failed.head == nil))
        }
        context.close(promise: nil)
    }
}
