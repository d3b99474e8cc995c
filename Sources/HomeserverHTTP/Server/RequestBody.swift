import Homeserver
import NIOCore
import Synchronization

/// The body of a request: complete already, or still arriving.
///
/// Reading it asks the client for more, and not reading it stops the client: a body is never buffered beyond
/// `BodyStream.highWaterMark`. It can be read once.
public struct RequestBody: AsyncSequence, Sendable {
    public typealias Element = ByteBuffer

    enum Storage: Sendable {
        case complete(ByteBuffer)
        case arriving(BodyStream)
    }

    let storage: Storage
    /// The length that the client has announced; nil when it sends chunks without saying how many.
    public let declaredLength: Int?

    init(_ storage: Storage, declaredLength: Int?) {
        self.storage = storage
        self.declaredLength = declaredLength
    }

    /// A body that is here already.
    public init(_ buffer: ByteBuffer = ByteBuffer()) {
        self.init(.complete(buffer), declaredLength: buffer.readableBytes)
    }

    public init(bytes: [UInt8]) {
        self.init(ByteBuffer(bytes: bytes))
    }

    public func makeAsyncIterator() -> AsyncIterator { AsyncIterator(storage: storage) }

    public struct AsyncIterator: AsyncIteratorProtocol {
        var storage: Storage?

        public mutating func next() async throws -> ByteBuffer? {
            switch storage {
            case .complete(let buffer):
                storage = nil
                return buffer.readableBytes > 0 ? buffer : nil
            case .arriving(let stream): return try await stream.next()
            case nil: return nil
            }
        }
    }

    /// Reads the whole body.
    ///
    /// - Parameter held: where it is counted.
    /// - Throws: `M_TOO_LARGE` (413) as soon as it is known to be larger than `limit`; what `held` throws.
    func collect(upTo limit: Int, countedBy held: HeldBodies.Body? = nil) async throws -> ByteBuffer {
        let tooLarge = MatrixError.tooLarge("The body is larger than the \(limit) bytes that are accepted here.")
        guard declaredLength ?? 0 <= limit else { throw tooLarge }
        var iterator = makeAsyncIterator()
        guard var all = try await iterator.next() else { return ByteBuffer() }
        guard all.readableBytes <= limit else { throw tooLarge }
        try held?.add(all.readableBytes)
        while var chunk = try await iterator.next() {
            guard all.readableBytes + chunk.readableBytes <= limit else { throw tooLarge }
            try held?.add(chunk.readableBytes)
            all.writeBuffer(&chunk)
        }
        return all
    }
}

/// The part of a body between the connection that receives it and the handler that reads it.
///
/// The mutex protects what has arrived and who waits; nothing is awaited or called while it is held.
final class BodyStream: Sendable {
    /// How much may lie unread before the connection stops reading from the client.
    static let highWaterMark = 128 * 1024

    private enum End: Sendable {
        case complete
        case failed(any Error)
    }

    private struct State: Sendable {
        var unread = ByteBuffer()
        var end: End?
        var reader: CheckedContinuation<ByteBuffer?, any Error>?
    }

    private let state = Mutex(State())
    /// Tells the connection that the handler wants to read; called on any thread.
    private let wanted: @Sendable () -> Void

    init(wanted: @escaping @Sendable () -> Void) {
        self.wanted = wanted
    }

    /// The next part of the body; nil at its end. Only one task reads.
    func next() async throws -> ByteBuffer? {
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                let (ready, replaced) = state.withLock { state -> (Result<ByteBuffer?, any Error>?, Bool) in
                    if state.unread.readableBytes > 0 {
                        defer { state.unread = ByteBuffer() }
                        return (.success(state.unread), false)
                    }
                    switch state.end {
                    case .complete: return (.success(nil), false)
                    case .failed(let error): return (.failure(error), false)
                    case nil:
                        let replaced = state.reader != nil
                        state.reader = continuation
                        return (nil, replaced)
                    }
                }
                precondition(!replaced, "a body is read by one task")
                wanted()
                if let ready { continuation.resume(with: ready) }
            }
        } onCancel: {
            fail(CancellationError())
        }
    }

    /// Takes what the client has sent.
    ///
    /// - Returns: whether there is room for more.
    func receive(_ part: ByteBuffer) -> Bool {
        var part = part
        let (reader, hasRoom) = state.withLock { state in
            if state.end != nil { return (nil as CheckedContinuation<ByteBuffer?, any Error>?, true) }
            if let reader = state.reader.take() { return (reader, true) }
            if state.unread.readableBytes == 0 { state.unread = part } else { state.unread.writeBuffer(&part) }
            return (nil, state.unread.readableBytes < Self.highWaterMark)
        }
        reader?.resume(returning: part)
        return hasRoom
    }

    func finish() {
        let reader = state.withLock { state in
            if state.end == nil { state.end = .complete }
            return state.reader.take()
        }
        reader?.resume(returning: nil)
    }

    /// Ends the body before its end; what is unread stays readable.
    func fail(_ error: any Error) {
        let reader = state.withLock { state in
            if state.end == nil { state.end = .failed(error) }
            return state.reader.take()
        }
        reader?.resume(throwing: error)
    }
}
