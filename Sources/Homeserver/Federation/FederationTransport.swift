import MatrixCore

/// A request to another server, signed and encoded.
public struct ServerRequest: Sendable {
    public var method: String
    public var destination: ServerName
    /// Path and query, percent-encoded.
    public var target: String
    public var headers: [(name: String, value: String)]
    public var body: [UInt8]?
    /// Milliseconds until the whole answer must be here.
    public var timeout: Int64
    /// Bytes of the answer that are read at most.
    public var mostBytes: Int
    /// Where the body of a good answer goes; nil: it is collected.
    public var sink: (any AnswerSink)?

    public init(
        method: String, destination: ServerName, target: String, headers: [(name: String, value: String)] = [],
        body: [UInt8]? = nil, timeout: Int64, mostBytes: Int, sink: (any AnswerSink)? = nil
    ) {
        self.method = method
        self.destination = destination
        self.target = target
        self.headers = headers
        self.body = body
        self.timeout = timeout
        self.mostBytes = mostBytes
        self.sink = sink
    }
}

/// Takes the body of an answer while it comes, so that nobody has to hold all of it. One call comes after another.
public protocol AnswerSink: Sendable {
    /// An answer with status 200 begins; its body is empty yet.
    ///
    /// - Throws: if it is none that can be used. The connection ends then, and the request with this error.
    func begin(_ answer: ServerResponse) throws
    /// - Throws: as ``begin(_:)``.
    func take(_ bytes: UnsafeRawBufferPointer) throws
}

/// What another server answered.
public struct ServerResponse: Sendable {
    public var status: Int
    public var headers: [(name: String, value: String)]
    public var body: [UInt8]

    public init(status: Int, headers: [(name: String, value: String)] = [], body: [UInt8]) {
        self.status = status
        self.headers = headers
        self.body = body
    }

    /// The first header of a name, which is given in lower case.
    public func header(_ name: String) -> String? { headers.first { $0.name.lowercased() == name }?.value }
}

/// Why there is no answer.
public struct TransportError: Error, Sendable, CustomStringConvertible {
    public enum Kind: Sendable, Hashable {
        /// The server's name leads nowhere, or nobody listens there.
        case unreachable
        /// It took too long.
        case timedOut
        /// This server has too much to do to find out: that says nothing of the other one.
        case busy
        /// The answer is larger than it may be, or is no HTTP.
        case unusable
        /// The address is one that this server doesn't speak to.
        case denied
    }

    public let kind: Kind
    public let description: String

    public init(_ kind: Kind, _ description: String) {
        self.kind = kind
        self.description = description
    }
}

/// The network, as far as other servers are concerned: over sockets in the product, within the process in simulations.
public protocol FederationTransport: Sendable {
    /// Finds the server, sends the request and reads the answer.
    ///
    /// - Throws: ``TransportError``, or what the request's sink throws.
    func send(_ request: ServerRequest) async throws -> ServerResponse
    /// Reads what lies at a URL that another server has named; only HTTPS.
    ///
    /// - Throws: ``TransportError``, or what the sink throws.
    func get(
        _ url: String, into sink: (any AnswerSink)?, timeout: Int64, mostBytes: Int
    ) async throws -> ServerResponse
    func close() async
}

/// Where federation is switched off.
public struct NoFederation: FederationTransport {
    public init() {}

    public func send(_ request: ServerRequest) async throws -> ServerResponse {
        throw TransportError(.denied, "this server doesn't speak to others (federation.enabled)")
    }

    public func get(
        _ url: String, into sink: (any AnswerSink)?, timeout: Int64, mostBytes: Int
    ) async throws -> ServerResponse {
        throw TransportError(.denied, "this server doesn't speak to others (federation.enabled)")
    }

    public func close() async {}
}
