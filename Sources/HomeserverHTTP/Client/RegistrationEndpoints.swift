import Homeserver
import MatrixCore

/// Account registration (Client-Server API, "Account registration and management").
extension ClientAPI {
    var registrationEndpoints: [Endpoint] {
        [
            Endpoint(
                .POST, "/_matrix/client/{version:v3|r0}/register", authentication: .none, rateLimit: .registration,
                handler: register),
            Endpoint(
                .GET, "/_matrix/client/{version:v3|r0}/register/available", authentication: .none, rateLimit: .general
            ) { request in
                guard let name = request.query["username"] else { throw MatrixError.missingParam("username") }
                try await self.homeserver.accounts.checkAvailable(name)
                return .json(["available": true])
            },
            Endpoint(
                .GET, "/_matrix/client/v1/register/m.login.registration_token/validity", authentication: .none,
                rateLimit: .login
            ) { request in
                guard let token = request.query["token"] else { throw MatrixError.missingParam("token") }
                return .json(["valid": .bool(try await self.homeserver.accounts.isValidRegistrationToken(token))])
            },
        ]
    }

    private func register(_ request: Request) async throws -> Response {
        switch request.query["kind"] ?? "user" {
        case "user": break
        case "guest": throw MatrixError(.guestAccessForbidden, "There are no guest accounts on this server.")
        default: throw MatrixError.invalidParam("“kind” must be user or guest.")
        }
        let body = try await request.json(emptyIsObject: true).root
        // Access tokens don't expire here, so there is nothing to refresh.
        _ = try body.optionalBool("refresh_token")
        let wanted = AccountService.RegistrationRequest(
            username: try body.optionalString("username"), password: try body.optionalString("password"),
            deviceID: try body.optionalString("device_id"),
            displayName: try body.optionalString("initial_device_display_name"),
            inhibitLogin: try body.optionalBool("inhibit_login") ?? false)
        switch try await homeserver.accounts.register(wanted, auth: try body.optionalObject("auth")) {
        case .challenge(let challenge): return .json(.object(challenge), status: .unauthorized)
        case .registered(let user, nil): return .json(["user_id": .string(user.string)])
        case .registered(_, let session?): return .json(Self.json(session))
        }
    }

    static func json(_ session: AccountService.Session) -> JSON {
        [
            "user_id": .string(session.userID.string), "access_token": .string(session.accessToken),
            "device_id": .string(session.deviceID), "home_server": .string(session.userID.server.string),
        ]
    }

    /// Registration by shared secret, as Synapse's administration API has it: scripts and bridges use it.
    var sharedSecretEndpoints: [Endpoint] {
        [
            Endpoint(.GET, "/_synapse/admin/v1/register", authentication: .none, rateLimit: .registration) { _ in
                .json(["nonce": .string(try self.homeserver.accounts.makeNonce())])
            },
            Endpoint(.POST, "/_synapse/admin/v1/register", authentication: .none, rateLimit: .registration) { request in
                let body = try await request.json().root
                let session = try await self.homeserver.accounts.registerBySharedSecret(
                    nonce: try body.requiredString("nonce"), username: try body.requiredString("username"),
                    password: try body.requiredString("password"), admin: try body.optionalBool("admin") ?? false,
                    userType: try body.optionalString("user_type"), mac: try body.requiredString("mac"))
                return .json(Self.json(session))
            },
        ]
    }
}
