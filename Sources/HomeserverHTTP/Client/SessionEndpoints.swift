import Homeserver
import MatrixCore

/// Logging in and out (Client-Server API, "Login", "Logout", "Current account information").
extension ClientAPI {
    var sessionEndpoints: [Endpoint] {
        [
            Endpoint(.GET, "/_matrix/client/{version:v3|r0}/login", authentication: .none, rateLimit: .general) { _ in
                .json(["flows": [["type": "m.login.password"]]])
            },
            Endpoint(
                .POST, "/_matrix/client/{version:v3|r0}/login", authentication: .none, rateLimit: .login, handler: logIn
            ),
            Endpoint(.POST, "/_matrix/client/{version:v3|r0}/logout", authentication: .accessToken) { request in
                try await self.homeserver.accounts.logOut(try request.authenticated())
                return .empty
            },
            Endpoint(.POST, "/_matrix/client/{version:v3|r0}/logout/all", authentication: .accessToken) { request in
                try await self.homeserver.accounts.logOutAll(try request.authenticated())
                return .empty
            },
            Endpoint(.GET, "/_matrix/client/{version:v3|r0}/account/whoami", authentication: .accessToken) { request in
                let requester = try request.authenticated()
                return .json([
                    "user_id": .string(requester.userID.string), "device_id": .string(requester.deviceID),
                    "is_guest": false,
                ])
            },
        ]
    }

    private func logIn(_ request: Request) async throws -> Response {
        let body = try await request.json().root
        guard let type = try body.optionalString("type") else { throw MatrixError.missingParam("type") }
        guard type == "m.login.password" else {
            throw MatrixError(.unknown, "“\(type)” is not a way to sign in here; see GET /login.", status: 400)
        }
        var user = try body.optionalString("user")
        if let identifier = try body.optionalObject("identifier") {
            guard try identifier.requiredString("type") == "m.id.user" else {
                throw MatrixError(.unknown, "People are identified by m.id.user here.", status: 400)
            }
            user = try identifier.requiredString("user")
        }
        guard let user else { throw MatrixError.missingParam("identifier") }
        let session = try await homeserver.accounts.logIn(
            user: user, password: try body.requiredString("password"), deviceID: try body.optionalString("device_id"),
            displayName: try body.optionalString("initial_device_display_name"))
        var answer = Self.json(session)
        answer["well_known"] = ["m.homeserver": ["base_url": .string(homeserver.configuration.publicBaseURL)]]
        return .json(answer)
    }
}
