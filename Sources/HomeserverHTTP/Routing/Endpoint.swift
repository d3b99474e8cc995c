import Homeserver
import NIOHTTP1

/// One operation of an API: where it is, who may ask, how often, and what answers.
public struct Endpoint: Sendable {
    /// Who may call an endpoint. The gate (`Router.admit`) decides; the endpoint only states it.
    public enum Authentication: Sendable, Hashable {
        /// Anyone; a token is not even looked at.
        case none
        /// Anyone; a token, if there is one, must be valid and tells who asks.
        case optionalAccessToken
        /// A user with a valid access token, or an application service on behalf of one.
        case accessToken
        /// A user with a valid access token who administers this server.
        case administrator
        /// A server that has signed the request (Server-Server API, "Request Authentication").
        case signedByServer
        /// A program on this machine that may open the server's local socket.
        case localSocket
    }

    /// The API an endpoint belongs to: a listener serves some of them.
    public enum API: String, Sendable, Hashable, CaseIterable {
        case client, federation, admin, health
        /// The command line's own API, only on the server's local socket.
        case local
    }

    /// The budget that requests to an endpoint draw from.
    public enum RateLimit: Sendable, Hashable {
        /// Not limited: cheap, or bounded by other means.
        case none
        /// The general budget of an account, or of an address when nobody is signed in.
        case general
        /// Attempts to sign in or to prove an identity.
        case login
        /// New accounts.
        case registration
        /// Messages and state sent into rooms.
        case message
        /// Joining rooms.
        case join
        /// Inviting people.
        case invite
        /// Uploads and downloads of media.
        case media
        /// Reports to those who run the server.
        case report
        /// Requests of other servers.
        case federation
    }

    public typealias Handler = @Sendable (Request) async throws -> Response

    public let method: HTTPMethod
    public let patterns: [PathPattern]
    public let authentication: Authentication
    public let api: API
    public let rateLimit: RateLimit
    public let handler: Handler
    /// Whether nothing is changed for the client, so that nobody misses anything when it is given up half-way.
    public let onlyReads: Bool
    /// All parameters that the patterns name; a handler may ask for these and no others.
    let parameterNames: Set<String>

    /// - Parameters:
    ///   - patterns: paths such as `/_matrix/client/{version:v3|r0}/rooms/{roomId}/state/{eventType}`; see ``PathPattern``.
    ///   - onlyReads: by default what the method says.
    public init(
        _ method: HTTPMethod, _ patterns: [PathPattern], api: API = .client, authentication: Authentication,
        rateLimit: RateLimit = .general, onlyReads: Bool? = nil, handler: @escaping Handler
    ) {
        precondition(!patterns.isEmpty, "an endpoint without a path can't be reached")
        self.method = method
        self.patterns = patterns
        self.authentication = authentication
        self.api = api
        self.rateLimit = rateLimit
        self.handler = handler
        self.onlyReads = onlyReads ?? (method == .GET || method == .HEAD)
        parameterNames = Set(patterns.flatMap(\.parameterNames))
    }

    /// An endpoint with a single path.
    public init(
        _ method: HTTPMethod, _ pattern: PathPattern, api: API = .client, authentication: Authentication,
        rateLimit: RateLimit = .general, onlyReads: Bool? = nil, handler: @escaping Handler
    ) {
        self.init(
            method, [pattern], api: api, authentication: authentication, rateLimit: rateLimit, onlyReads: onlyReads,
            handler: handler)
    }
}

extension Endpoint {
    /// A set of APIs: what a listener serves.
    public struct APIs: OptionSet, Sendable, Hashable {
        public let rawValue: Int
        public init(rawValue: Int) { self.rawValue = rawValue }

        public init(_ apis: some Sequence<API>) {
            self = apis.reduce(into: []) { $0.formUnion($1.asSet) }
        }

        public static let local = API.local.asSet
        /// All, the local one included: what tests ask.
        public static let all = APIs(API.allCases)

        public func contains(_ api: API) -> Bool { contains(api.asSet) }
    }
}

extension Endpoint.API {
    var asSet: Endpoint.APIs {
        switch self {
        case .client: .init(rawValue: 1)
        case .federation: .init(rawValue: 2)
        case .admin: .init(rawValue: 4)
        case .health: .init(rawValue: 8)
        case .local: .init(rawValue: 16)
        }
    }
}
