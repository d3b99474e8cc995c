import MatrixCore

/// Why a question to another server has no answer.
struct FederationFailure: Error, CustomStringConvertible {
    let server: ServerName
    /// The status of its answer; nil if there was none.
    var status: Int?
    var code: String?
    let reason: String
    /// The error object of its answer.
    var answer: JSONView?

    var description: String { "\(server): \(reason)" }

    /// Whether this server had too much to do to ask: that says nothing of the other one.
    var isBusy = false

    /// Codes that say something of what was asked for. Others may say something of the client's session, which is no other server's
    /// business: of an `M_UNKNOWN_TOKEN` clients throw away their keys.
    private static let toldToClients: Set = [
        "M_FORBIDDEN", "M_NOT_FOUND", "M_UNRECOGNIZED", "M_UNKNOWN", "M_LIMIT_EXCEEDED", "M_BAD_JSON",
        "M_INVALID_PARAM",
        "M_MISSING_PARAM", "M_INCOMPATIBLE_ROOM_VERSION", "M_UNSUPPORTED_ROOM_VERSION", "M_UNABLE_TO_AUTHORISE_JOIN",
        "M_UNABLE_TO_GRANT_JOIN", "M_BAD_STATE", "M_INVITE_BLOCKED", "M_TOO_LARGE", "M_NOT_YET_UPLOADED",
        // From before the specification took it up.
        "ORG.MATRIX.MSC4155.INVITE_BLOCKED", "ORG.MATRIX.MSC4155.M_INVITE_BLOCKED",
    ]

    /// The code of the answer that clients may be told; nil if there is none, or it is of the server's own trouble.
    var codeForClients: String? {
        guard let status, let code, Self.toldToClients.contains(code) else { return nil }
        // What is still to be uploaded is told with the status of a gateway that waited.
        return (400..<500).contains(status) && status != 401 || code == "M_NOT_YET_UPLOADED" ? code : nil
    }

    /// What the client is told that caused the question.
    var clientError: MatrixError {
        guard let status else {
            return MatrixError(.unknown, "The server \(server) can't be reached: \(reason).", status: 502)
        }
        if let code = codeForClients {
            return MatrixError(MatrixError.Code(code, status: status), "\(server) says: \(reason)")
        }
        return MatrixError(.unknown, "The server \(server) answered with an error: \(reason)", status: 502)
    }
}

/// Asks other servers, in this one's name (Server-Server API, "Request Authentication").
final class FederationClient: Sendable {
    let serverName: ServerName
    private let signingKeys: SigningKeys
    var signingKey: SigningKey { signingKeys.current }
    let transport: any FederationTransport
    let health: PeerHealth

    /// Milliseconds that a question takes at most, unless it says otherwise, and bytes of its answer.
    static let usualTimeout: Int64 = 20_000
    static let usualBytes = 10 << 20

    init(serverName: ServerName, signingKeys: SigningKeys, transport: any FederationTransport, health: PeerHealth) {
        self.serverName = serverName
        self.signingKeys = signingKeys
        self.transport = transport
        self.health = health
    }

    /// A path of the API from its segments, each percent-encoded.
    static func path(_ prefix: String, _ segments: String..., query: [(String, String)] = []) -> String {
        var path = prefix
        for segment in segments { path += "/" + PercentEncoding.encode(segment) }
        if !query.isEmpty {
            path +=
                "?"
                + query.map { "\(PercentEncoding.encode($0.0))=\(PercentEncoding.encode($0.1))" }.joined(separator: "&")
        }
        return path
    }

    func get(
        _ path: String, from server: ServerName, timeout: Int64 = usualTimeout, mostBytes: Int = usualBytes
    ) async throws -> JSONView {
        try await json(try await ask("GET", path, nil, server, timeout: timeout, mostBytes: mostBytes), server)
    }

    func put(
        _ path: String, _ body: [UInt8], to server: ServerName, timeout: Int64 = usualTimeout,
        mostBytes: Int = usualBytes
    ) async throws -> JSONView {
        try await json(try await ask("PUT", path, body, server, timeout: timeout, mostBytes: mostBytes), server)
    }

    func post(
        _ path: String, _ body: JSON, to server: ServerName, timeout: Int64 = usualTimeout, mostBytes: Int = usualBytes
    ) async throws -> JSONView {
        try await json(
            try await ask("POST", path, try body.canonical(), server, timeout: timeout, mostBytes: mostBytes), server)
    }

    /// Asks and answers what came.
    ///
    /// - Parameters:
    ///   - body: canonical JSON.
    ///   - isSigned: false for what everybody may ask.
    ///   - sink: takes the body of a good answer.
    /// - Throws: ``FederationFailure``, also for answers that tell of an error; what the sink throws.
    func ask(
        _ method: String, _ path: String, _ body: [UInt8]?, _ server: ServerName, isSigned: Bool = true,
        into sink: (any AnswerSink)? = nil, timeout: Int64, mostBytes: Int
    ) async throws -> ServerResponse {
        guard server != serverName else { throw FederationFailure(server: server, reason: "it is this server itself") }
        var headers: [(name: String, value: String)] = []
        if isSigned {
            let signature = RequestSignature(
                signing: method, target: path, content: body, from: serverName, to: server, with: signingKey)
            headers.append(("Authorization", signature.header))
        }
        if body != nil { headers.append(("Content-Type", "application/json")) }
        let answer: ServerResponse
        do {
            answer = try await transport.send(
                ServerRequest(
                    method: method, destination: server, target: path, headers: headers, body: body, timeout: timeout,
                    mostBytes: mostBytes, sink: sink))
        } catch let error as TransportError {
            // Who asked has gone: that says nothing of the other server.
            try Task.checkCancellation()
            let isBusy = error.kind == .busy
            if !isBusy { health.failed(server, error.description) }
            throw FederationFailure(server: server, reason: error.description, isBusy: isBusy)
        }
        health.lives(server)
        guard (200..<300).contains(answer.status) else { throw Self.failure(answer, server) }
        return answer
    }

    private static func failure(_ answer: ServerResponse, _ server: ServerName) -> FederationFailure {
        let root = (try? JSONDocument(parsing: answer.body, limits: .envelope))?.root
        return FederationFailure(
            server: server, status: answer.status, code: root?["errcode"]?.string,
            reason: root?["error"]?.string.map { $0.shortened(to: 500) } ?? "status \(answer.status)", answer: root)
    }

    private func json(_ answer: ServerResponse, _ server: ServerName) async throws -> JSONView {
        guard let document = try? JSONDocument(parsing: answer.body, limits: .envelope), document.root.isObject else {
            throw FederationFailure(server: server, status: answer.status, reason: "its answer is no JSON object")
        }
        return document.root
    }
}

/// Percent-encoding of a segment of a path or a part of a query (RFC 3986 §2.3: all but unreserved characters).
enum PercentEncoding {
    static func encode(_ text: String) -> String {
        let digits = Array("0123456789ABCDEF".utf8)
        var bytes: [UInt8] = []
        for byte in text.utf8 {
            switch byte {
            case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x2D, 0x2E, 0x5F, 0x7E: bytes.append(byte)
            default: bytes += [0x25, digits[Int(byte >> 4)], digits[Int(byte & 15)]]
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}
