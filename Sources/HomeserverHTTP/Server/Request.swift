import Homeserver
import MatrixCore
import NIOCore
import NIOHTTP1

/// A request, from whichever connection or test it comes.
public struct Request: Sendable {
    public var method: HTTPMethod
    /// The path as it was sent, percent-encoded.
    public let path: String
    /// What follows the question mark, as it was sent.
    let rawQuery: Substring
    public private(set) var query: Query
    public var headers: HTTPHeaders
    /// The parameters of the path; see also the subscript.
    public var parameters = PathParameters()
    public private(set) var body: RequestBody
    /// Who is at the other end, proxies that we trust aside.
    public var remoteAddress: ClientAddress
    /// A short name of this request, unique for a long time; every line about it in the log carries it.
    public let id: String
    /// Whether it came through the local socket of the command line.
    public var isLocalSocket: Bool { served.contains(.local) }
    /// The APIs that the listener serves.
    public let served: Endpoint.APIs
    /// Whose access token it carries; set before the handler is called, when the endpoint asks for one.
    public var requester: Requester?
    /// The server that has signed it, and its body; set before the handler is called, when the endpoint asks for that.
    public var origin: ServerName?
    public var signedContent: JSONDocument?
    /// Counts the body for as long as the request is there.
    private var heldBody: HeldBodies.Body?
    /// The loop of the connection, on which the handler runs.
    public let eventLoop: any EventLoop

    /// - Parameter target: path and query as in the request line; the absolute form (`http://host/path`) is understood too.
    /// The connection's side of it; nil in tests.
    var exchange: Exchange?

    public init(
        _ method: HTTPMethod, _ target: String, headers: HTTPHeaders = [:], body: RequestBody = RequestBody(),
        remoteAddress: ClientAddress = .local, id: String, served: Endpoint.APIs = .all, eventLoop: any EventLoop
    ) {
        self.method = method
        let target = Self.originForm(of: target)
        if let mark = target.utf8.firstIndex(of: UInt8(ascii: "?")) {
            path = String(target[..<mark])
            rawQuery = target[target.utf8.index(after: mark)...]
        } else {
            path = String(target)
            rawQuery = ""
        }
        query = Query(rawQuery)
        self.headers = headers
        self.body = body
        self.remoteAddress = remoteAddress
        self.id = id
        self.served = served
        self.eventLoop = eventLoop
    }

    /// Leaves what tells whose request it is and what it asked for.
    mutating func forgetContent() {
        headers = [:]
        query = Query("")
        body = RequestBody()
        parameters = PathParameters()
        signedContent = nil
        heldBody = nil
        exchange = nil
    }

    /// A parameter of the path, decoded; see ``PathParameters``.
    public subscript(parameter: String) -> String { parameters[parameter] }

    /// RFC 9112 §3.2.2: a server must accept the absolute form of a request target.
    private static func originForm(of target: String) -> Substring {
        guard target.utf8.first != UInt8(ascii: "/"), let scheme = target.firstRange(of: "://") else {
            return target[...]
        }
        let rest = target[scheme.upperBound...]
        guard let start = rest.utf8.firstIndex(where: { $0 == UInt8(ascii: "/") || $0 == UInt8(ascii: "?") }) else {
            return "/"
        }
        return rest[start...]
    }
}

extension Request {
    /// The largest JSON body of an endpoint that doesn't say otherwise: four times the largest event is ample for all
    /// but uploads of keys and transactions of servers.
    public static let defaultJSONLimit = 1024 * 1024

    /// Reads the whole body.
    ///
    /// - Throws: `M_TOO_LARGE` (413) as soon as it is known to be larger than `limit` bytes.
    public func collect(upTo limit: Int) async throws -> [UInt8] {
        let buffer = try await body.collect(upTo: limit)
        return buffer.withUnsafeReadableBytes { Array($0) }
    }

    /// The same for a body that is counted among those that are held, for as long as the request is.
    mutating func collect(upTo limit: Int, among bodies: HeldBodies) async throws -> [UInt8] {
        let isLocal = remoteAddress.ip?.isLoopback ?? true
        let held = HeldBodies.Body(of: bodies, from: isLocal ? nil : remoteAddress.networkKey?.description)
        heldBody = held
        let buffer = try await body.collect(upTo: limit, countedBy: held)
        return buffer.withUnsafeReadableBytes { Array($0) }
    }
}

extension Request {
    /// Reads the body as a JSON object.
    ///
    /// - Parameters:
    ///   - limit: the most bytes it may have.
    ///   - emptyIsObject: whether no body at all counts as `{}`: only where the endpoint's clients are known to do that.
    /// - Throws: `M_TOO_LARGE` (413), `M_NOT_JSON` when it isn't JSON, `M_BAD_JSON` when it isn't an object.
    public func json(
        upTo limit: Int = Request.defaultJSONLimit, emptyIsObject: Bool = false, limits: JSONLimits = .default
    ) async throws -> JSONDocument {
        var bytes = try await collect(upTo: limit)
        if bytes.isEmpty, emptyIsObject { bytes = Array("{}".utf8) }
        let document: JSONDocument
        do {
            document = try JSONDocument(parsing: bytes, limits: limits)
        } catch {
            throw MatrixError.notJSON(bytes.isEmpty ? "The body is empty; it must be a JSON object." : "\(error)")
        }
        guard document.root.isObject else { throw MatrixError.badJSON("The body must be a JSON object.") }
        return document
    }
}

/// Who is at the other end of a connection.
public struct ClientAddress: Sendable, Hashable, CustomStringConvertible {
    /// None for connections through Unix sockets without a proxy's `X-Forwarded-For`.
    public let ip: IPAddress?

    public init(_ ip: IPAddress?) {
        self.ip = ip
    }

    /// A program on this machine, through a Unix socket.
    public static let local = ClientAddress(nil)

    /// What rate limits count by: an IPv4 address, or the /64 network that one IPv6 subscriber has.
    public var networkKey: IPAddress? {
        guard let ip, !ip.isV4 else { return ip }
        return IPAddress(high: ip.high, low: 0)
    }

    public var description: String { ip?.description ?? "local" }
}
