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
        let body = try await request.json(emptyIsObject: true).root
        let session = try Self.session(body)
        switch request.query["kind"] ?? "user" {
        case "user": break
        case "guest": return .json(Self.json(try await homeserver.accounts.registerGuest(session)))
        default: throw MatrixError.invalidParam("“kind” must be user or guest.")
        }
        let wanted = AccountService.RegistrationRequest(
            username: try body.optionalString("username"), password: try body.optionalString("password"),
            deviceID: session.deviceID, displayName: session.displayName,
            inhibitLogin: try body.optionalBool("inhibit_login") ?? false, refreshes: session.refreshes,
            guestToken: try body.optionalString("guest_access_token"))
        let auth = try body.optionalObject("auth")
        if body["type"]?.string == "m.login.application_service" {
            guard let token = try Gate.token(of: request) else { throw MatrixError.missingToken }
            return Self.answer(try await homeserver.accounts.register(wanted, byAppservice: token))
        }
        switch try await homeserver.accounts.register(wanted, auth: auth) {
        case .challenge(let challenge): return .json(.object(challenge), status: .unauthorized)
        case .registered(let user, let session): return Self.answer((user, session))
        }
    }

    private static func answer(_ registered: (user: UserID, session: AccountService.Session?)) -> Response {
        .json(registered.session.map(json) ?? ["user_id": .string(registered.user.string)])
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
