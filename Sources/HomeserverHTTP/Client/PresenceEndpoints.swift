import Homeserver
import MatrixCore

/// Who is there (Client-Server API, "Presence").
extension ClientAPI {
    var presenceEndpoints: [Endpoint] {
        let path: PathPattern = "/_matrix/client/{version:v3|r0}/presence/{userId}/status"
        return [
            Endpoint(.GET, path, authentication: .accessToken) { request in
                .json(
                    .object(
                        try await self.homeserver.presence.status(
                            of: try UserID.parse(request["userId"]), for: try request.authenticated())))
            },
            Endpoint(.PUT, path, authentication: .accessToken) { request in
                let requester = try request.own()
                let body = try await request.json().root
                guard let state = PresenceService.State(name: try body.requiredString("presence")) else {
                    throw MatrixError.badJSON("“presence” must be online, offline or unavailable.")
                }
                try await self.homeserver.presence.set(
                    state, status: try body.optionalString("status_msg"), for: requester)
                return .empty
            },
        ]
    }
}
