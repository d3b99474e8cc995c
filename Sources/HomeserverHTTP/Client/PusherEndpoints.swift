import Homeserver

/// Ways to users' devices (Client-Server API, "Push Notifications", `/pushers`).
extension ClientAPI {
    var pusherEndpoints: [Endpoint] {
        [
            Endpoint(.GET, "/_matrix/client/{version:v3|r0}/pushers", authentication: .accessToken) { request in
                .json(try await self.homeserver.pushers.pushers(of: try request.authenticated()))
            },
            Endpoint(.POST, "/_matrix/client/{version:v3|r0}/pushers/set", authentication: .accessToken) { request in
                try await self.homeserver.pushers.set(
                    try await request.json().root, for: try request.authenticated())
                return .empty
            },
        ]
    }
}
