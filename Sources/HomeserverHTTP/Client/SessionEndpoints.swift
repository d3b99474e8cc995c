import Homeserver
import MatrixCore

/// Logging in and out (Client-Server API, "Login", "Refreshing access tokens", "Logout", "Current account information").
extension ClientAPI {
    var sessionEndpoints: [Endpoint] {
        [
            Endpoint(.GET, "/_matrix/client/{version:v3|r0}/login", authentication: .none, rateLimit: .general) { _ in
                .json([
                    "flows": [
                        ["type": "m.login.password"], ["type": "m.login.token", "get_login_token": true],
                        ["type": "m.login.application_service"],
                    ]
                ])
            },
            Endpoint(
                .POST, "/_matrix/client/{version:v3|r0}/login", authentication: .none, rateLimit: .login, handler: logIn
            ),
            Endpoint(
                .POST, "/_matrix/client/v1/login/get_token", authentication: .accessToken, handler: getLoginToken),
            Endpoint(.POST, "/_matrix/client/{version:v3|v1}/refresh", authentication: .none, rateLimit: .general) {
                request in
                let token = try await request.json().root.requiredString("refresh_token")
                var answer = Self.json(try await self.homeserver.accounts.refresh(token))
                for key in ["user_id", "device_id", "home_server"] { answer[key] = nil }
                return .json(answer)
            },
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
                var answer: JSON = [
                    "user_id": .string(requester.userID.string), "is_guest": .bool(requester.isGuest),
                ]
                if !requester.deviceID.isEmpty { answer["device_id"] = .string(requester.deviceID) }
                return .json(answer)
            },
            Endpoint(
                .POST, "/_matrix/client/{version:v3|r0}/user/{userId}/openid/request_token",
                authentication: .accessToken
            ) { request in
                _ = try await request.json(emptyIsObject: true)
                let token = try await self.homeserver.accounts.makeOpenIDToken(for: try request.own())
                return .json([
                    "access_token": .string(token), "token_type": "Bearer",
                    "matrix_server_name": .string(self.homeserver.configuration.serverName.string),
                    "expires_in": .integer(AccountService.openIDLifetime / 1_000),
                ])
            },
        ]
    }

    /// What a session's beginning is asked for with, at registration and login.
    static func session(_ body: JSONView) throws -> AccountService.SessionRequest {
        AccountService.SessionRequest(
            deviceID: try body.optionalString("device_id"),
            displayName: try body.optionalString("initial_device_display_name"),
            refreshes: try body.optionalBool("refresh_token") ?? false)
    }

    static func json(_ session: AccountService.Session) -> JSON {
        var json: JSON = [
            "user_id": .string(session.userID.string), "access_token": .string(session.accessToken),
            "device_id": .string(session.deviceID), "home_server": .string(session.userID.server.string),
        ]
        if let refresh = session.refreshToken { json["refresh_token"] = .string(refresh) }
        if let expires = session.expiresInMS { json["expires_in_ms"] = .integer(expires) }
        return json
    }

    private func logIn(_ request: Request) async throws -> Response {
        let body = try await request.json().root
        let wanted = try Self.session(body)
        let session: AccountService.Session
        switch try body.requiredString("type") {
        case "m.login.password":
            session = try await homeserver.accounts.logIn(
                user: try Self.user(body), password: try body.requiredString("password"), deviceID: wanted.deviceID,
                displayName: wanted.displayName, refreshes: wanted.refreshes)
        case "m.login.token":
            session = try await homeserver.accounts.logIn(token: try body.requiredString("token"), wanted)
        case "m.login.application_service":
            guard let token = try Gate.token(of: request) else { throw MatrixError.missingToken }
            session = try await homeserver.accounts.logIn(
                user: try Self.user(body), byAppservice: token, wanted)
        case let type:
            throw MatrixError(.unknown, "“\(type)” is not a way to sign in here; see GET /login.", status: 400)
        }
        var answer = Self.json(session)
        answer["well_known"] = ["m.homeserver": ["base_url": .string(homeserver.configuration.publicBaseURL)]]
        return .json(answer)
    }

    /// Whom a login is about (Client-Server API, "Identifier types").
    private static func user(_ body: JSONView) throws -> String {
        var user = try body.optionalString("user")
        if let identifier = try body.optionalObject("identifier") {
            switch try identifier.requiredString("type") {
            case "m.id.user": user = try identifier.requiredString("user")
            case "m.id.thirdparty", "m.id.phone":
                // No such identifier is known here, of anybody.
                throw MatrixError.forbidden("The user name or the password is wrong.")
            default: throw MatrixError(.unknown, "People are identified by m.id.user here.", status: 400)
            }
        }
        guard let user else { throw MatrixError.missingParam("identifier") }
        return user
    }

    private func getLoginToken(_ request: Request) async throws -> Response {
        let auth = try await request.json(emptyIsObject: true).root.optionalObject("auth")
        let (outcome, token) = try await homeserver.devices.loginToken(auth: auth, of: try request.authenticated())
        return Self.answer(
            outcome,
            ["login_token": .string(token ?? ""), "expires_in_ms": .integer(AccountService.loginTokenLifetime)])
    }
}
