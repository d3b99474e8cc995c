import Homeserver
import Logging
import NIOCore
import NIOHTTP1

/// Writing answers, no faster than the client takes them.
extension Connection {
    /// The most that is written before looking whether the client takes it.
    private static let sliceSize = 128 * 1024

    /// Answers a request, or lets it wait without a task until there is something to tell. Runs in the request's task.
    func take(_ reply: Reply, for exchange: Exchange) async {
        switch reply {
        case .ready(let response):
            await answer(exchange, with: response)
            server.requestEnds()
        case .waiting(let waiting):
            guard isCurrent(exchange) else {
                waiting.abandon()
                return server.requestEnds()
            }
            exchange.task = nil
            exchange.waiting = waiting
            waiting.whenWoken { [executor] in
                executor.loop.execute { self.goOn(exchange) }
            }
        }
    }

    private func goOn(_ exchange: Exchange) {
        // None if the client has gone meanwhile.
        guard let waiting = exchange.waiting.take() else { return }
        exchange.task = Task(executorPreference: executor) {
            await self.take(waiting.again(), for: exchange)
        }
    }

    /// Writes the answer to a request and takes the next one. Runs in the request's task.
    private func answer(_ exchange: Exchange, with response: Response) async {
        guard isCurrent(exchange) else { return }
        do {
            try await send(response, exchange)
        } catch {
            guard isCurrent(exchange) else { return }
            if !exchange.isHeadWritten, !(error is CancellationError) {
                let failure = ErrorResponse.make(
                    for: error, requestID: exchange.requestID, logger: server.logger)
                try? await send(failure, exchange)
            } else {
                // Cutting the connection is the only way left to tell the client that this isn't the whole answer.
                if !(error is CancellationError) {
                    server.logger.error("an answer broke off", metadata: ["error": "\(String(reflecting: error))"])
                }
                context?.close(promise: nil)
                return
            }
        }
        if isCurrent(exchange) { finish(exchange) }
    }

    private func isCurrent(_ exchange: Exchange) -> Bool {
        if case .answering(let current) = phase { current === exchange } else { false }
    }

    private func send(_ response: Response, _ exchange: Exchange) async throws {
        switch response.body {
        case .none:
            write(.head(makeHead(response, exchange)))
        case .bytes(let bytes) where bytes.count <= 2 * Self.sliceSize:
            write(.head(makeHead(response, exchange)))
            if let context {
                write(.body(.byteBuffer(context.channel.allocator.buffer(bytes: bytes))))
            }
        case .bytes(let bytes):
            var buffer = ByteBuffer(bytes: bytes)
            write(.head(makeHead(response, exchange)))
            while let slice = buffer.readSlice(length: min(buffer.readableBytes, Self.sliceSize)),
                slice.readableBytes > 0
            {
                try await writeBody(slice)
            }
        case .file(let path, let offset, let size):
            let file = try await OpenFile(path: path)
            write(.head(makeHead(response, exchange)))
            var position = offset
            while position < offset + size {
                let slice = try await file.read(
                    at: position, count: Int(min(offset + size - position, Int64(Self.sliceSize))))
                try await writeBody(slice)
                position += Int64(slice.readableBytes)
            }
        case .stream(let length, let produce):
            let writer = StreamWriter(connection: self, head: makeHead(response, exchange), exchange: exchange)
            try await produce(writer)
            try await writer.finish(expecting: length)
        }
    }

    func write(_ part: HTTPServerResponsePart) {
        guard case .answering(let exchange) = phase else { return }
        if case .head = part { exchange.isHeadWritten = true }
        context?.write(wrapOutboundOut(part), promise: nil)
    }

    /// Writes a part of a body and waits until the client has taken enough for the next.
    func writeBody(_ slice: ByteBuffer) async throws {
        try Task.checkCancellation()
        guard let context, case .answering = phase else { throw CancellationError() }
        context.writeAndFlush(wrapOutboundOut(.body(.byteBuffer(slice))), promise: nil)
        guard !context.channel.isWritable else { return }
        stalledSince = .now()
        updateTimer()
        try await withCheckedThrowingContinuation { writableWaiter = $0 }
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        if context.channel.isWritable {
            stalledSince = nil
            if streamEndsBy != nil { streamEndsBy = .now() + server.limits.write }
            if let waiter = writableWaiter.take() {
                waiter.resume()
            } else if case .idle = phase {
                proceed()
            }
        }
        context.fireChannelWritabilityChanged()
    }

    /// The head with the headers that belong to the connection and not to the endpoint.
    func makeHead(_ response: Response, _ exchange: Exchange) -> HTTPResponseHead {
        var head = HTTPResponseHead(
            version: exchange.isHTTP10 ? .http1_0 : .http1_1, status: response.status, headers: response.headers)
        if let fault = HeaderCheck.fault(in: head.headers) {
            // A line break in a header would let a stranger's text become a header or a whole answer.
            server.logger.error("left out headers that HTTP doesn't allow", metadata: ["header": "\(fault)"])
            head.headers = HeaderCheck.valid(head.headers)
        }
        let hasNoBody = response.status.mayHaveResponseBody == false
        if !hasNoBody, !head.headers.contains(name: "Content-Length") {
            if let length = response.bodyLength {
                head.headers.add(name: "Content-Length", value: String(length))
            } else if exchange.isHTTP10 {
                exchange.keepsAlive = false
            }
        }
        head.headers.add(name: "Date", value: date.now())
        if exchange.keepsAlive, server.isDraining || exchange.isBodyBroken || !isRestSmall(exchange) {
            exchange.keepsAlive = false
        }
        if !isStream {
            if !exchange.keepsAlive {
                head.headers.add(name: "Connection", value: "close")
            } else if exchange.isHTTP10 {
                head.headers.add(name: "Connection", value: "keep-alive")
            }
        }
        return head
    }

    /// Whether what is left of the request's body may be read and thrown away, so that the connection lives on.
    private func isRestSmall(_ exchange: Exchange) -> Bool {
        if exchange.isBodyComplete { return true }
        guard let length = exchange.declaredLength, !exchange.owesContinue else { return false }
        return length - bodyReceived <= server.limits.bufferedBody
    }

    private func finish(_ exchange: Exchange) {
        guard let context else { return }
        exchange.stream?.fail(CancellationError())
        if isStream {
            finishStream(context, exchange)
            return
        }
        context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
        if !exchange.keepsAlive || exchange.isBodyBroken {
            linger()
        } else if !exchange.isBodyComplete {
            phase = .discarding
            bodyReceived = 0
            proceed()
        } else {
            becomeIdle()
        }
    }

    /// Ends the answer of a stream. It has as long to be taken as one of a connection; the rest of a body is read and thrown away for a
    /// while, because a stream that is closed before it ends takes with it what the client has not taken of the answer.
    private func finishStream(_ context: ChannelHandlerContext, _ exchange: Exchange) {
        streamEndsBy = .now() + server.limits.write
        let taken = context.eventLoop.makePromise(of: Void.self)
        taken.futureResult.assumeIsolated().whenComplete { _ in
            self.streamEndsBy = nil
            if case .closed = self.phase {
                self.timer?.cancel()
                self.timer = nil
            }
        }
        if exchange.isBodyComplete {
            phase = .closed
        } else {
            phase = .lingering
            bodyReceived = 0
            lingerUntil = .now() + server.limits.linger
        }
        context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: taken)
        proceed()
    }

    /// Answers a request that is not even looked at, and closes the connection.
    func refuse(_ error: MatrixError) {
        let exchange = Exchange(keepsAlive: false, isHTTP10: false, declaredLength: 0, owesContinue: false)
        // Of a connection nothing more is read until it is closed.
        exchange.isBodyComplete = !isStream
        phase = .answering(exchange)
        server.logger.debug("refused", metadata: ["error": "\(error)"])
        let response = ErrorResponse.make(for: error)
        write(.head(makeHead(response, exchange)))
        if case .bytes(let bytes) = response.body {
            write(.body(.byteBuffer(ByteBuffer(bytes: bytes))))
        }
        finish(exchange)
    }

    private func linger() {
        phase = .lingering
        bodyReceived = 0
        lingerUntil = .now() + server.limits.linger
        context?.close(mode: .output, promise: nil)
        proceed()
    }
}

/// Writes a body that is made on the way. The head goes out with the first bytes: a failure before them is still a
/// proper answer.
private final class StreamWriter: ResponseWriter, @unchecked Sendable {
    private let connection: Connection
    private var head: HTTPResponseHead?
    private let exchange: Exchange
    private var written = 0

    init(connection: Connection, head: HTTPResponseHead, exchange: Exchange) {
        self.connection = connection
        self.head = head
        self.exchange = exchange
    }

    func write(_ bytes: ByteBuffer) async throws {
        if connection.executor.loop.inEventLoop { return try await writeOnLoop(bytes) }
        // A task of the producer's own calls from elsewhere; the connection's state lives on its loop.
        try await Task(executorPreference: connection.executor) { [self] in
            try await writeOnLoop(bytes)
        }.value
    }

    private func writeOnLoop(_ bytes: ByteBuffer) async throws {
        if let head = head.take() { connection.write(.head(head)) }
        written += bytes.readableBytes
        try await connection.writeBody(bytes)
    }

    func finish(expecting length: Int?) async throws {
        if let head = head.take() { connection.write(.head(head)) }
        if let length, length != written {
            throw ListenerError(description: "\(written) bytes were written where \(length) were announced")
        }
    }
}
