import Homeserver
import MatrixCore
import NIOHTTP1

/// The Server-Server API: a file for each group of operations.
public struct FederationAPI: Sendable {
    let homeserver: Homeserver
    var federation: FederationService { homeserver.federation }

    public init(_ homeserver: Homeserver) { self.homeserver = homeserver }

    public var endpoints: [Endpoint] {
        homeserver.federation.isEnabled
            ? keyEndpoints + transactionEndpoints + eventEndpoints + membershipEndpoints + queryEndpoints
                + mediaEndpoints + policyEndpoints : []
    }

    static let prefix = "/_matrix/federation/v1"

    /// An operation that a server signs.
    func signed(
        _ method: HTTPMethod, _ path: String,
        _ handler: @escaping @Sendable (Request, ServerName) async throws -> Response
    ) -> Endpoint {
        Endpoint(
            method, PathPattern(path), api: .federation, authentication: .signedByServer,
            rateLimit: .federation
        ) { request in
            guard let origin = request.origin else { throw MatrixError(.unauthorized, "The request is not signed.") }
            return try await handler(request, origin)
        }
    }
}

extension Request {
    /// The object that the server has sent.
    func object() throws -> JSONView {
        guard let root = signedContent?.root, root.isObject else {
            throw MatrixError.badJSON("The body must be a JSON object.")
        }
        return root
    }

    func eventID(query name: String) throws -> EventID {
        guard let text = query[name] else { throw MatrixError.missingParam(name) }
        guard let eventID = EventID(text) else { throw MatrixError.invalidParam("“\(text)” is not an event ID.") }
        return eventID
    }
}
