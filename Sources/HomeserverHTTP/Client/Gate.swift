import Homeserver
import MatrixCore

/// What stands before every endpoint: who asks (Client-Server API, "Using access tokens"), and whether they ask too often.
///
/// Most requests pass without anything being waited for. What has to look something up is in functions of its own: a request that
/// waits for news keeps the memory of the way that it took.
struct Gate: Sendable {
    let homeserver: Homeserver
    private let heldBodies = HeldBodies()

    func admit(_ request: inout Request, _ endpoint: Endpoint) async throws {
        var isUnlimited = false
        if try !admitAtOnce(&request, endpoint) { isUnlimited = try await lookUp(&request, endpoint) }
        if endpoint.authentication == .administrator, request.requester?.isAdmin != true {
            throw MatrixError.forbidden("Only administrators of this server may do this.")
        }
        if !isUnlimited, let kind = RateLimiter.Kind(endpoint.rateLimit), !isOfAppservice(request, kind) {
            try limit(kind, request)
        }
    }

    /// Recognises whom it can by what is in memory.
    ///
    /// - Returns: false if something has to be looked up or noted.
    private func admitAtOnce(_ request: inout Request, _ endpoint: Endpoint) throws -> Bool {
        switch endpoint.authentication {
        case .none: return true
        case .localSocket:
            guard request.isLocalSocket else { throw MatrixError.unrecognizedPath }
            return true
        case .signedByServer: return false
        case .optionalAccessToken, .accessToken, .administrator:
            guard let token = try Self.token(of: request) else {
                if endpoint.authentication == .optionalAccessToken { return true }
                throw MatrixError.missingToken
            }
            guard !homeserver.appservices.knows(token), let requester = try homeserver.accounts.tokens.known(token),
                !homeserver.lastSeen.isDue(requester, address: request.remoteAddress.description)
            else { return false }
            request.requester = requester
            try AccountRestrictions.check(requester, endpoint)
            return true
        }
    }

    /// - Returns: whether limits are none for who asks.
    @inline(never) private func lookUp(_ request: inout Request, _ endpoint: Endpoint) async throws -> Bool {
        if endpoint.authentication == .signedByServer {
            try await recogniseServer(&request)
            return false
        }
        guard let token = try Self.token(of: request) else { throw MatrixError.missingToken }
        if homeserver.appservices.knows(token) { return try await recogniseAppservice(token, &request, endpoint) }
        let requester = try await homeserver.accounts.tokens.requester(for: token)
        request.requester = requester
        try AccountRestrictions.check(requester, endpoint)
        try await homeserver.lastSeen.note(
            requester, address: request.remoteAddress.description, userAgent: request.headers.first(name: "User-Agent"))
        return false
    }

    private func recogniseAppservice(
        _ token: String, _ request: inout Request, _ endpoint: Endpoint
    ) async throws -> Bool {
        // The device had another name before the specification took it up.
        let device = request.query["device_id"] ?? request.query["org.matrix.msc3202.device_id"]
        guard
            let speaker = try await homeserver.appservices.speaker(
                for: token, user: request.query["user_id"], device: device)
        else { throw MatrixError.unknownToken() }
        request.requester = speaker.requester
        try AccountRestrictions.check(speaker.requester, endpoint)
        return speaker.isUnlimited
    }

    /// The largest body of another server: fifty events and a hundred EDUs.
    private static let largestTransaction = 32 << 20

    /// Finds out which server has signed the request.
    private func recogniseServer(_ request: inout Request) async throws {
        guard homeserver.federation.isEnabled else { throw MatrixError.unrecognizedPath }
        let headers = request.headers["Authorization"]
        guard headers.contains(where: { RequestSignature(header: $0) != nil }) else {
            throw MatrixError(
                .unauthorized, "The request is not signed: it has no Authorization header of the scheme X-Matrix.")
        }
        let bytes = try await request.collect(upTo: Self.largestTransaction, among: heldBodies)
        if !bytes.isEmpty {
            do {
                request.signedContent = try JSONDocument(parsing: bytes, limits: .envelope)
            } catch { throw MatrixError.notJSON("\(error)") }
        }
        request.origin = try await homeserver.federation.authenticate(
            headers, method: request.method.rawValue,
            target: request.rawQuery.isEmpty ? request.path : "\(request.path)?\(request.rawQuery)",
            content: request.signedContent?.root, mayAsk: { [request] in try homeserver.limitAsking(for: request) })
    }

    private func limit(_ kind: RateLimiter.Kind, _ request: Request) throws {
        try homeserver.rateLimits.take(kind, for: request.requester?.userID.string ?? request.network)
    }

    /// Whether an application service makes its users, or signs them in: as many as there are on its side of a bridge.
    private func isOfAppservice(_ request: Request, _ kind: RateLimiter.Kind) -> Bool {
        guard kind == .registration || kind == .login, let token = try? Self.token(of: request) else { return false }
        return homeserver.appservices.knows(token)
    }

    /// The token in the header, or in the query as old clients send it.
    static func token(of request: Request) throws -> String? {
        if let header = request.headers.first(name: "Authorization") {
            let parts = header.split(separator: " ", maxSplits: 1)
            guard parts.count == 2, parts[0].lowercased() == "bearer" else { throw MatrixError.missingToken }
            return String(parts[1].drop { $0 == " " })
        }
        return request.query["access_token"]
    }
}

extension RateLimiter.Kind {
    /// nil where nothing is limited.
    init?(_ limit: Endpoint.RateLimit) {
        switch limit {
        case .none, .federation: return nil
        case .general: self = .general
        case .login: self = .login
        case .registration: self = .registration
        case .message: self = .message
        case .join: self = .join
        case .invite: self = .invite
        case .media: self = .media
        case .report: self = .report
        }
    }
}

extension Homeserver {
    /// Takes note that somebody has this server ask another one that it doesn't know. What is behind a proxy on this machine that isn't
    /// known for one counts as nobody.
    func limitAsking(for request: Request) throws {
        guard request.remoteAddress.ip?.isLoopback == false else { return }
        try rateLimits.take(.unknownServers, for: request.network)
    }
}

extension Request {
    /// Whom a request without an account counts for.
    var network: String { remoteAddress.networkKey?.description ?? remoteAddress.description }

    /// Who asks; only for handlers of endpoints that need an access token.
    func authenticated() throws -> Requester {
        guard let requester else { throw MatrixError.missingToken }
        return requester
    }

    func roomID(_ parameter: String = "roomId") throws -> RoomID {
        guard let roomID = RoomID(self[parameter]) else {
            throw MatrixError.invalidParam("“\(self[parameter])” is not a room ID.")
        }
        return roomID
    }

    func eventID(_ parameter: String = "eventId") throws -> EventID {
        guard let eventID = EventID(self[parameter]) else {
            throw MatrixError.invalidParam("“\(self[parameter])” is not an event ID.")
        }
        return eventID
    }

    /// A whole number in the query.
    func integer(_ name: String) throws -> Int64? {
        guard let text = query[name] else { return nil }
        guard let number = Int64(text) else { throw MatrixError.invalidParam("“\(name)” must be a whole number.") }
        return number
    }

    func flag(_ name: String) throws -> Bool {
        switch query[name] {
        case nil, "false": return false
        case "true": return true
        default: throw MatrixError.invalidParam("“\(name)” must be true or false.")
        }
    }
}

extension UserID {
    /// - Throws: `M_INVALID_PARAM` if the text is no user ID.
    static func parse(_ text: String) throws -> UserID {
        guard let user = UserID(text) else { throw MatrixError.invalidParam("“\(text)” is not a user ID.") }
        return user
    }
}

extension Response {
    static let empty = Response.json(Array("{}".utf8))
}
