import Homeserver
import MatrixCore

/// What stands before every endpoint: who asks (Client-Server API, "Using access tokens"), and whether they ask too often.
struct Gate: Sendable {
    let homeserver: Homeserver

    func admit(_ request: inout Request, _ endpoint: Endpoint) async throws {
        switch endpoint.authentication {
        case .none: break
        case .optionalAccessToken:
            if let token = try Self.token(of: request) {
                request.requester = try await homeserver.accounts.tokens.requester(for: token)
            }
        case .accessToken, .administrator:
            guard let token = try Self.token(of: request) else { throw MatrixError.missingToken }
            let requester = try await homeserver.accounts.tokens.requester(for: token)
            if endpoint.authentication == .administrator, !requester.isAdmin {
                throw MatrixError.forbidden("Only administrators of this server may do this.")
            }
            request.requester = requester
        case .localSocket:
            guard request.isLocalSocket else { throw MatrixError.unrecognizedPath }
        case .signedByServer:
            // No endpoint of this kind is served yet; letting one through would be worse than failing.
            throw MatrixError.unrecognizedPath
        }
        if let kind = RateLimiter.Kind(endpoint.rateLimit) {
            let asker = request.requester
            let address = request.remoteAddress
            try homeserver.rateLimits.take(
                kind, for: asker?.userID.string ?? address.networkKey?.description ?? address.description)
        }
    }

    /// The token in the header, or in the query as old clients send it.
    private static func token(of request: Request) throws -> String? {
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
        }
    }
}

extension Request {
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
