import Crypto
import Database
import MatrixCore

extension AccountService {
    /// What a client asks for when it registers (`POST /register`).
    public struct RegistrationRequest: Sendable {
        public var username: String?
        public var password: String?
        public var deviceID: String?
        public var displayName: String?
        public var inhibitLogin: Bool

        public init(username: String?, password: String?, deviceID: String?, displayName: String?, inhibitLogin: Bool) {
            self.username = username
            self.password = password
            self.deviceID = deviceID
            self.displayName = displayName
            self.inhibitLogin = inhibitLogin
        }
    }

    /// What came of it.
    public enum RegistrationOutcome: Sendable {
        case registered(UserID, Session?)
        /// More authentication is needed: the body of the answer with status 401.
        case challenge(JSONObject)
    }

    /// Registers an account after interactive authentication (Client-Server API, "Account registration").
    public func register(_ request: RegistrationRequest, auth: JSONView?) async throws -> RegistrationOutcome {
        let flows: [[InteractiveAuthentication.Stage]]
        switch registration {
        case .closed:
            throw MatrixError.forbidden("Registration is closed here; ask whoever runs this server for an account.")
        case .open: flows = [[.dummy]]
        case .token: flows = [[.registrationToken]]
        }
        // A name that can't be had is told before anybody goes through the stages.
        if let username = request.username { try await checkAvailable(username) }
        let interactive = InteractiveAuthentication(database: database, surroundings: surroundings)
        let outcome = try await interactive.advance(auth, operation: "register", flows: flows) { stage, auth in
            switch stage {
            case .registrationToken:
                guard let token = auth["token"]?.string else { throw MatrixError.missingParam("token") }
                guard try await self.isValidRegistrationToken(token) else {
                    throw MatrixError(
                        .unauthorized, "This registration token is unknown, used up or expired.", status: 401)
                }
                return .string(token)
            case .dummy, .password: return true
            }
        }
        guard case .complete(let session, let completed) = outcome else {
            guard case .challenge(let body) = outcome else { preconditionFailure("an outcome is one or the other") }
            return .challenge(body)
        }
        let token = completed[InteractiveAuthentication.Stage.registrationToken.name]?.stringValue
        let now = surroundings.now()
        let nid: UserNID
        let userID: UserID
        do {
            (nid, userID) = try await createAccount(
                localpart: request.username, password: request.password, admin: false
            ) { write in
                if let token { write.useRegistrationToken(token, at: now) }
                if let session { write.endInteractiveSession(session) }
            }
        } catch DatabaseError.conflict(let what) {
            throw MatrixError.forbidden("Registration did not go through: \(what). Begin anew.")
        }
        if request.inhibitLogin { return .registered(userID, nil) }
        return .registered(
            userID, try await begin(nid, userID, deviceID: request.deviceID, displayName: request.displayName))
    }

    /// Whether a registration token would do (`GET /register/m.login.registration_token/validity`).
    public func isValidRegistrationToken(_ token: String) async throws -> Bool {
        try await database.registrationToken(token)?.isValid(at: surroundings.now()) ?? false
    }

    // MARK: - By shared secret, as Synapse has it

    /// Nonces are good for a minute.
    private static let nonceLifetime: Int64 = 60_000
    /// Nonces at a time; a flood of them drops the oldest.
    private static let mostNonces = 1_000

    /// A nonce for one registration by shared secret.
    public func makeNonce() throws -> String {
        guard sharedSecret != nil else {
            throw MatrixError(.unrecognized, "Registration by shared secret is not enabled.", status: 404)
        }
        let nonce = surroundings.randomText(32)
        let now = surroundings.now()
        nonces.withLock { nonces in
            nonces = nonces.filter { $0.value > now }
            if nonces.count >= Self.mostNonces, let oldest = nonces.min(by: { $0.value < $1.value }) {
                nonces[oldest.key] = nil
            }
            nonces[nonce] = now + Self.nonceLifetime
        }
        return nonce
    }

    /// Registers by a message authentication code over nonce, name, password and kind, keyed with the shared secret.
    public func registerBySharedSecret(
        nonce: String, username: String, password: String, admin: Bool, userType: String?, mac: String
    ) async throws -> Session {
        guard let sharedSecret else {
            throw MatrixError(.unrecognized, "Registration by shared secret is not enabled.", status: 404)
        }
        let now = surroundings.now()
        guard nonces.withLock({ $0.removeValue(forKey: nonce) }).map({ $0 > now }) == true else {
            throw MatrixError(.unknown, "The nonce is unknown or too old; ask for another one.", status: 400)
        }
        var message = Array("\(nonce)\0\(username)\0\(password)\0\(admin ? "admin" : "notadmin")".utf8)
        if let userType { message += Array("\0\(userType)".utf8) }
        let key = SymmetricKey(data: Array(sharedSecret.utf8))
        guard let code = Hex.decode(mac),
            HMAC<Insecure.SHA1>.isValidAuthenticationCode(code, authenticating: message, using: key)
        else { throw MatrixError.forbidden("The message authentication code is wrong.") }
        let (nid, userID) = try await createAccount(localpart: username, password: password, admin: admin)
        return try await begin(nid, userID, deviceID: nil, displayName: nil)
    }
}
