import Homeserver
import NIOCore
import NIOHTTP1

/// An HTTP/1.1 connection, or a stream of an HTTP/2 connection: takes requests one at a time and has them answered.
///
/// All state is touched on the event loop of the channel only; the tasks that answer run there too (``LoopExecutor``).
/// That is what makes it sendable.
///
/// A request that follows while another is answered waits, and so does the client: once there is one, nothing more is
/// read. What was read already is bounded by the size of two reads. (To read nothing while the first is answered would cost
/// each request two calls of `epoll_ctl`.)
final class Connection: ChannelDuplexHandler, @unchecked Sendable {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundIn = HTTPServerResponsePart
    typealias OutboundOut = HTTPServerResponsePart

    enum Phase {
        /// Waiting for the head of a request.
        case idle
        /// Reading a body that is small enough to be complete before the handler is called.
        case buffering(HTTPRequestHead, Exchange)
        case answering(Exchange)
        /// Answered before the end of the body; the rest is small enough to be read and thrown away.
        case discarding
        /// Our side is closed; input is thrown away until the client closes too. Closing at once, with input unread, would
        /// reset the connection and could destroy the answer before the client has read it.
        case lingering
        case closed
    }

    let server: ServerContext
    let executor: LoopExecutor
    /// Whether this is a stream of HTTP/2, which has one request and whose connection is looked after elsewhere.
    let isStream: Bool
    private let peer: Peer
    var context: ChannelHandlerContext?

    var phase = Phase.idle
    private var bufferedBody = ByteBuffer()
    private var waiting: CircularBuffer<HTTPServerRequestPart> = []
    /// What was wrong with the input, once the request before it is answered.
    private var inputError: MatrixError?
    private var isReadWanted = false

    // Deadlines; see Connection+Deadlines.swift.
    var timer: NIOScheduledCallback?
    var timerAt = NIODeadline.distantFuture
    var idleSince = NIODeadline.now()
    var isFirstRequest = true
    var bodySince = NIODeadline.now()
    var bodyReceived = 0
    var lingerUntil = NIODeadline.distantFuture
    var stalledSince: NIODeadline?
    /// When all of a stream's answer must have been taken.
    var streamEndsBy: NIODeadline?

    // Writing; see Connection+Answering.swift.
    var writableWaiter: CheckedContinuation<Void, any Error>?
    var date = HTTPDate()

    /// More parts than one read can hold in practice; a client that gets here is not one.
    private static let maximumWaiting = 8192
    /// What a client may still send after its answer before the connection is closed instead of read to the end.
    private static let discardLimit = 64 * 1024
    /// The same for a connection that is being closed: a client in full flow should still get to read its answer.
    private static let lingerLimit = 4 * 1024 * 1024

    init(_ server: ServerContext, executor: LoopExecutor, peer: Peer, isStream: Bool) {
        self.server = server
        self.executor = executor
        self.peer = peer
        self.isStream = isStream
    }

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        if !isStream { updateTimer() }
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        end()
        self.context = nil
    }

    func channelInactive(context: ChannelHandlerContext) {
        end()
        context.fireChannelInactive()
    }

    /// The client has gone: whoever reads for it stops.
    private func end() {
        if case .answering(let exchange) = phase {
            exchange.stream?.fail(CancellationError())
            if exchange.endsWithClient { exchange.task?.cancel() }
            if let waiting = exchange.waiting.take() {
                waiting.abandon()
                server.requestEnds()
            }
        }
        phase = .closed
        waiting.removeAll()
        writableWaiter.take()?.resume(throwing: CancellationError())
        timer?.cancel()
        timer = nil
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if event is ChannelShouldQuiesceEvent, !isStream, case .idle = phase, waiting.isEmpty {
            context.close(promise: nil)
        }
        context.fireUserInboundEventTriggered(event)
    }

    // MARK: Input

    /// Passes the wish to read on to the socket only while there is something to do with what comes.
    func read(context: ChannelHandlerContext) {
        if mayRead { context.read() } else { isReadWanted = true }
    }

    private var mayRead: Bool {
        switch phase {
        case .idle: stalledSince == nil
        case .answering(let exchange) where exchange.isBodyComplete:
            waiting.isEmpty && inputError == nil && stalledSince == nil
        case .answering(let exchange): exchange.pausedSince == nil
        case .buffering, .discarding, .lingering: true
        case .closed: false
        }
    }

    private func resumeReading() {
        guard isReadWanted, mayRead else { return }
        isReadWanted = false
        context?.read()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let part = unwrapInboundIn(data)
        if !waiting.isEmpty || !takes(part) {
            waiting.append(part)
            if waiting.count > Self.maximumWaiting { context.close(promise: nil) }
            return
        }
        process(part)
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        updateTimer()
        context.fireChannelReadComplete()
    }

    /// Whether the part belongs to the request at hand and not to one that has to wait.
    private func takes(_ part: HTTPServerRequestPart) -> Bool {
        switch phase {
        case .idle: stalledSince == nil
        case .answering(let exchange): !exchange.isBodyComplete
        case .buffering, .discarding, .lingering, .closed: true
        }
    }

    private func process(_ part: HTTPServerRequestPart) {
        switch (phase, part) {
        case (.lingering, .body(let bytes)):
            bodyReceived += bytes.readableBytes
            if bodyReceived > Self.lingerLimit { context?.close(promise: nil) }
        case (.lingering, .end) where isStream:
            phase = .closed
        case (.lingering, _), (.closed, _):
            break
        case (.idle, .head(let head)):
            begin(head)
        case (.buffering, .body(var bytes)):
            bodyReceived += bytes.readableBytes
            guard bodyReceived <= server.limits.bufferedBody else {
                // A stream of HTTP/2 can send more than it has announced.
                return refuse(MatrixError.tooLarge("The body is larger than announced."))
            }
            if bufferedBody.readableBytes == 0 { bufferedBody = bytes } else { bufferedBody.writeBuffer(&bytes) }
        case (.buffering(let head, let exchange), .end):
            exchange.isBodyComplete = true
            let body = RequestBody(bufferedBody)
            bufferedBody = ByteBuffer()
            dispatch(head, body, exchange)
        case (.answering(let exchange), .body(let bytes)):
            bodyReceived += bytes.readableBytes
            if exchange.stream?.receive(bytes) == false { exchange.pausedSince = .now() }
        case (.answering(let exchange), .end):
            exchange.isBodyComplete = true
            exchange.stream?.finish()
        case (.discarding, .body(let bytes)):
            bodyReceived += bytes.readableBytes
            if bodyReceived > Self.discardLimit { context?.close(promise: nil) }
        case (.discarding, .end):
            becomeIdle()
        case (.idle, _), (.buffering, .head), (.answering, .head), (.discarding, .head):
            // The decoder gives a head, parts of a body, and an end, in this order.
            context?.close(promise: nil)
        }
    }

    private func begin(_ head: HTTPRequestHead) {
        let framing: MessageFraming
        do {
            framing = try MessageFraming(head)
        } catch {
            return refuse(error)
        }
        let exchange = Exchange(
            keepsAlive: framing.keepsAlive, isHTTP10: head.version == .http1_0, declaredLength: framing.bodyLength,
            owesContinue: framing.expectsContinue)
        bodyReceived = 0
        bodySince = .now()
        if let length = framing.bodyLength, length <= server.limits.bufferedBody, !framing.expectsContinue {
            phase = .buffering(head, exchange)
            return
        }
        let loop = executor.loop
        let wanted = ObjectIdentifier(exchange)
        let stream = BodyStream { [weak self] in
            guard let self else { return }
            if loop.inEventLoop { bodyWanted(wanted) } else { loop.execute { self.bodyWanted(wanted) } }
        }
        exchange.stream = stream
        dispatch(head, RequestBody(.arriving(stream), declaredLength: framing.bodyLength), exchange)
    }

    /// The handler reads the body: the client is told to send it, or to go on.
    private func bodyWanted(_ wanted: ObjectIdentifier) {
        guard case .answering(let exchange) = phase, ObjectIdentifier(exchange) == wanted else { return }
        if exchange.owesContinue, !exchange.isHeadWritten {
            exchange.owesContinue = false
            bodySince = .now()
            context?.writeAndFlush(
                wrapOutboundOut(.head(HTTPResponseHead(version: .http1_1, status: .continue))), promise: nil)
        }
        if let since = exchange.pausedSince {
            exchange.pausedSince = nil
            bodySince = bodySince + (.now() - since)
            resumeReading()
        }
        updateTimer()
    }

    private func dispatch(_ head: HTTPRequestHead, _ body: RequestBody, _ exchange: Exchange) {
        phase = .answering(exchange)
        var request = Request(
            head.method, head.uri, headers: head.headers, body: body,
            remoteAddress: server.client(of: peer, head.headers), id: server.requestIDs.make(), served: peer.served,
            eventLoop: executor.loop)
        request.exchange = exchange
        exchange.requestID = request.id
        server.requestBegins()
        exchange.task = Task(executorPreference: executor) { [self] in
            await take(server.reply(request), for: exchange)
        }
    }

    // MARK: Between requests

    /// Takes the next request: one that waits already, or one that is yet to come.
    func becomeIdle() {
        phase = .idle
        isFirstRequest = false
        idleSince = .now()
        if let channel = context?.channel, !channel.isWritable {
            // A client that asks and doesn't take answers gets no more of them.
            stalledSince = idleSince
        }
        proceed()
    }

    /// Goes on with input that has waited.
    func proceed() {
        while let part = waiting.first, takes(part) {
            waiting.removeFirst()
            process(part)
        }
        if case .idle = phase, waiting.isEmpty, stalledSince == nil {
            if let inputError { return refuse(inputError) }
            if server.isDraining {
                context?.close(promise: nil)
                return
            }
        }
        resumeReading()
        updateTimer()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        guard let error = error as? HTTPParserError else {
            context.close(promise: nil)
            return
        }
        let answer =
            error == .headerOverflow
            ? MatrixError(.tooLarge, "The request has too many headers, or too large ones.", status: 431)
            : MatrixError(.unknown, "This isn't a valid HTTP request: \(error).", status: 400)
        switch phase {
        case .idle where waiting.isEmpty, .buffering: refuse(answer)
        case .idle: inputError = answer
        case .answering(let exchange):
            inputError = answer
            if !exchange.isBodyComplete { breakBody(of: exchange, answer) }
        case .discarding: context.close(promise: nil)
        case .lingering, .closed: break
        }
    }

    /// Tells the handler that the rest of the body won't come, and closes the connection after its answer.
    func breakBody(of exchange: Exchange, _ error: MatrixError) {
        exchange.isBodyBroken = true
        exchange.stream?.fail(error)
    }
}
