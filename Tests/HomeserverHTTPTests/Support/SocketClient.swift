import NIOCore
import NIOPosix
import Synchronization

/// A client that sends exactly the bytes it is told to, and reads what comes back.
final class SocketClient: Sendable {
    struct Answer: Sendable {
        var status: Int
        var headers: [(name: String, value: String)]
        var body: [UInt8]

        var text: String { String(decoding: body, as: UTF8.self) }
        func header(_ name: String) -> String? {
            headers.first { $0.name.lowercased() == name.lowercased() }?.value
        }
    }

    struct Closed: Error {}
    struct TimedOut: Error {}

    private final class Receiver: ChannelInboundHandler, Sendable {
        typealias InboundIn = ByteBuffer
        let bytes: AsyncStream<ByteBuffer>.Continuation
        init(_ bytes: AsyncStream<ByteBuffer>.Continuation) { self.bytes = bytes }
        func channelRead(context: ChannelHandlerContext, data: NIOAny) { bytes.yield(unwrapInboundIn(data)) }
        func channelInactive(context: ChannelHandlerContext) { bytes.finish() }
        func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
    }

    let channel: any Channel
    private let bytes: AsyncStream<ByteBuffer>
    private let unread = Mutex(ByteBuffer())

    /// - Parameter handlers: handlers between the socket and the client, such as TLS.
    init(
        port: Int, handlers: @escaping @Sendable () throws -> [any ChannelHandler] = { [] }
    ) async throws {
        let (bytes, continuation) = AsyncStream<ByteBuffer>.makeStream()
        self.bytes = bytes
        channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    for handler in try handlers() { try channel.pipeline.syncOperations.addHandler(handler) }
                    try channel.pipeline.syncOperations.addHandler(Receiver(continuation))
                }
            }
            .connect(host: "127.0.0.1", port: port).get()
    }

    deinit { channel.close(promise: nil) }

    func send(_ text: String) async throws {
        try await channel.writeAndFlush(ByteBuffer(string: text)).get()
    }

    func send(_ bytes: [UInt8]) async throws {
        try await channel.writeAndFlush(ByteBuffer(bytes: bytes)).get()
    }

    func close() async { try? await channel.close() }

    /// Reads one answer; 100 Continue is an answer too.
    func answer(hasBody: Bool = true) async throws -> Answer {
        let head = try await read { buffer in
            let view = buffer.readableBytesView
            guard let end = view.firstRange(of: Array("\r\n\r\n".utf8)) else { return nil }
            return end.upperBound - view.startIndex
        }
        let lines = String(buffer: head).split(separator: "\r\n")
        var answer = Answer(status: Int(lines[0].split(separator: " ")[1]) ?? 0, headers: [], body: [])
        for line in lines.dropFirst() {
            let parts = line.split(separator: ":", maxSplits: 1)
            answer.headers.append((String(parts[0]), parts[1].drop { $0 == " " }.description))
        }
        guard hasBody, answer.status >= 200 else { return answer }
        if answer.header("Transfer-Encoding") == "chunked" {
            while true {
                let size = try await line()
                guard let count = Int(size, radix: 16), count > 0 else { break }
                answer.body += try await exactly(count)
                _ = try await line()
            }
            _ = try await line()
        } else if let length = answer.header("Content-Length").flatMap({ Int($0) }) {
            answer.body = try await exactly(length)
        }
        return answer
    }

    /// Waits until the server closes; what it still sent is returned.
    func rest() async throws -> [UInt8] {
        try await Self.timeout(.seconds(300)) {
            var all = self.unread.withLock { Array($0.readableBytesView) }
            for await more in self.bytes { all += more.readableBytesView }
            return all
        }
    }

    private func line() async throws -> String {
        let line = try await read { buffer in
            let view = buffer.readableBytesView
            return view.firstRange(of: Array("\r\n".utf8)).map { $0.upperBound - view.startIndex }
        }
        return String(buffer: line).replacing("\r\n", with: "")
    }

    func exactly(_ count: Int) async throws -> [UInt8] {
        let buffer = try await read { $0.readableBytes >= count ? count : nil }
        return Array(buffer.readableBytesView)
    }

    private func read(_ complete: @escaping @Sendable (ByteBuffer) -> Int?) async throws -> ByteBuffer {
        try await Self.timeout(.seconds(300)) {
            while true {
                let found = self.unread.withLock { unread in complete(unread).flatMap { unread.readSlice(length: $0) } }
                if let found { return found }
                var iterator = self.bytes.makeAsyncIterator()
                guard var more = await iterator.next() else { throw Closed() }
                self.unread.withLock { _ = $0.writeBuffer(&more) }
            }
        }
    }

    private static func timeout<Result: Sendable>(
        _ limit: Duration, _ work: @escaping @Sendable () async throws -> Result
    ) async throws -> Result {
        try await withThrowingTaskGroup(of: Result.self) { group in
            group.addTask(operation: work)
            group.addTask {
                try await Task.sleep(for: limit)
                throw TimedOut()
            }
            defer { group.cancelAll() }
            guard let first = try await group.next() else { throw Closed() }
            return first
        }
    }
}
