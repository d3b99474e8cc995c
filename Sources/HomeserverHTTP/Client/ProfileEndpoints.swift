import Homeserver
import MatrixCore

/// Profiles (Client-Server API, "Profiles").
extension ClientAPI {
    var profileEndpoints: [Endpoint] {
        let field: PathPattern = "/_matrix/client/{version:v3|r0}/profile/{userId}/{keyName}"
        return [
            Endpoint(
                .GET, "/_matrix/client/{version:v3|r0}/profile/{userId}", authentication: .optionalAccessToken
            ) { request in
                .json(.object(try await self.homeserver.profiles.profile(of: try UserID.parse(request["userId"]))))
            },
            Endpoint(.GET, field, authentication: .optionalAccessToken) { request in
                let profile = try await self.homeserver.profiles.profile(of: try UserID.parse(request["userId"]))
                let name = request["keyName"]
                guard let value = profile[name] else { throw MatrixError.notFound("The profile has no “\(name)”.") }
                return .json(.object(JSONObject([(name, value)])))
            },
            Endpoint(.PUT, field, authentication: .accessToken) { request in
                let requester = try request.own()
                let name = request["keyName"]
                try Self.checkMayChange(name, requester)
                let body = try await request.json(upTo: 131_072).root
                guard let value = body[name] else { throw MatrixError.missingParam(name) }
                try await self.homeserver.profiles.set(name, to: value.json, for: requester)
                return .empty
            },
            Endpoint(.DELETE, field, authentication: .accessToken) { request in
                let requester = try request.own()
                try Self.checkMayChange(request["keyName"], requester)
                try await self.homeserver.profiles.set(request["keyName"], to: nil, for: requester)
                return .empty
            },
        ]
    }

    /// Guests may change their names and nothing else (Client-Server API, "Guest Access").
    private static func checkMayChange(_ field: String, _ requester: Requester) throws {
        if requester.isGuest, field != "displayname" { throw MatrixError.guestsForbidden }
    }
}
