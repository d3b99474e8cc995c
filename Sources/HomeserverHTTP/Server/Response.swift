import Homeserver
import MatrixCore
import NIOCore
import NIOHTTP1

/// An answer, before it is written to a connection.
public struct Response: Sendable {
    public enum Body: Sendable {
        case none
        case bytes([UInt8])
        /// A part of a file that doesn't change while it is sent; the whole file has offset 0 and its size.
        case file(path: String, offset: Int64 = 0, size: Int64)
        /// Bytes that are made while they are sent, `length` of them if that is known before.
        case stream(length: Int? = nil, @Sendable (any ResponseWriter) async throws -> Void)
    }

    public var status: HTTPResponseStatus
    public var headers: HTTPHeaders
    public var body: Body
    /// Set where there is no answer yet: the router makes a ``Reply`` of it that waits.
    private(set) var pending: PendingLook?

    public init(status: HTTPResponseStatus = .ok, headers: HTTPHeaders = [:], body: Body = .none) {
        self.status = status
        self.headers = headers
        self.body = body
    }

    /// JSON that is encoded already.
    public static func json(_ encoded: [UInt8], status: HTTPResponseStatus = .ok) -> Response {
        Response(status: status, headers: ["Content-Type": "application/json"], body: .bytes(encoded))
    }

    public static func json(_ value: JSON, status: HTTPResponseStatus = .ok) -> Response {
        json(value.encoded(), status: status)
    }

    /// JSON that is encoded already, or will be.
    public static func json(_ poll: LongPoll) -> Response {
        switch poll {
        case .answered(let encoded): return json(encoded)
        case .waiting(let look):
            var response = Response()
            response.pending = look
            return response
        }
    }

    /// A page; the caller adds its Content-Security-Policy.
    public static func html(_ page: String, status: HTTPResponseStatus = .ok) -> Response {
        Response(
            status: status, headers: ["Content-Type": "text/html; charset=utf-8"], body: .bytes(Array(page.utf8)))
    }

    public static func text(_ text: String, status: HTTPResponseStatus = .ok) -> Response {
        Response(
            status: status, headers: ["Content-Type": "text/plain; charset=utf-8"], body: .bytes(Array(text.utf8)))
    }

    /// The length of the body in bytes, when it is known.
    var bodyLength: Int? {
        switch body {
        case .none: 0
        case .bytes(let bytes): bytes.count
        case .file(_, _, let size): Int(size)
        case .stream(let length, _): length
        }
    }
}

/// Where a streaming response goes.
public protocol ResponseWriter: Sendable {
    /// Sends the bytes, and returns when the client has taken enough of them for more to be sent.
    ///
    /// - Throws: `CancellationError` when the client has gone or takes nothing for too long.
    func write(_ bytes: ByteBuffer) async throws
}
