import Homeserver
import MatrixCore

/// Other networks, which application services connect (Client-Server API, "Third-party Networks"; Application Service API,
/// "Pinging", "Application service room directories").
///
/// This server doesn't ask application services anything yet, and so knows of no network: lookups answer as they do where
/// nothing is found.
extension ClientAPI {
    var thirdPartyNetworkEndpoints: [Endpoint] {
        let lookups = "/_matrix/client/{version:v3|r0}/thirdparty"
        return [
            Endpoint(.GET, PathPattern("\(lookups)/protocols"), authentication: .accessToken) { _ in .json([:]) },
            Endpoint(.GET, PathPattern("\(lookups)/protocol/{protocol}"), authentication: .accessToken) { request in
                throw Self.unknownProtocol(request)
            },
            Endpoint(.GET, PathPattern("\(lookups)/location/{protocol}"), authentication: .accessToken) { request in
                throw Self.unknownProtocol(request)
            },
            Endpoint(.GET, PathPattern("\(lookups)/user/{protocol}"), authentication: .accessToken) { request in
                throw Self.unknownProtocol(request)
            },
            Endpoint(.GET, PathPattern("\(lookups)/location"), authentication: .accessToken) { request in
                guard let alias = request.query["alias"] else { throw MatrixError.missingParam("alias") }
                guard RoomAlias(alias) != nil else {
                    throw MatrixError.invalidParam("“\(alias)” is not a room alias.")
                }
                throw MatrixError.notFound("No room of another network has this alias.")
            },
            Endpoint(.GET, PathPattern("\(lookups)/user"), authentication: .accessToken) { request in
                guard let user = request.query["userid"] else { throw MatrixError.missingParam("userid") }
                _ = try UserID.parse(user)
                throw MatrixError.notFound("No user of another network has this ID.")
            },
            Endpoint(
                .PUT, "/_matrix/client/{version:v3|r0}/directory/list/appservice/{networkId}/{roomId}",
                authentication: .accessToken
            ) { request in
                let isPublished = try await request.visibility(isRequired: true)
                try await self.homeserver.directory.setPublished(
                    isPublished, try request.roomID(), network: request["networkId"], by: try request.authenticated())
                return .empty
            },
            Endpoint(.POST, "/_matrix/client/v1/appservice/{appserviceId}/ping", authentication: .accessToken) {
                request in
                _ = try await request.json(emptyIsObject: true).root.optionalString("transaction_id")
                throw self.homeserver.appservices.pingFailure(
                    request["appserviceId"], by: try request.authenticated())
            },
        ]
    }

    private static func unknownProtocol(_ request: Request) -> MatrixError {
        MatrixError.notFound("No application service here connects “\(request["protocol"])”.")
    }
}

extension Request {
    /// What the body says of a room's being listed; listed if it may say nothing, and does.
    func visibility(isRequired: Bool = false) async throws -> Bool {
        let body = try await json(emptyIsObject: !isRequired).root
        let visibility =
            isRequired ? try body.requiredString("visibility") : try body.optionalString("visibility") ?? "public"
        guard ["public", "private"].contains(visibility) else {
            throw MatrixError.invalidParam("“visibility” must be public or private.")
        }
        return visibility == "public"
    }
}
