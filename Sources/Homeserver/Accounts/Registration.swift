import Crypto
import Database
import MatrixCore

extension AccountService {
    /// What a client asks for when it registers (`POST /register`).
    public struct RegistrationRequest: Sendable {
        public var username: String?
        public var password: String?
        public var session: SessionRequest
        public var inhibitLogin: Bool
        /// The access token of a guest who wants to be an account like others.
        public var guestToken: String?

        public init(
            username: String?, password: String?, deviceID: String?, displayName: String?, inhibitLogin: Bool,
            refreshes: Bool = false, guestToken: String? = nil
        ) {
            self.username = username
            self.password = password
            self.session = SessionRequest(deviceID: deviceID, displayName: displayName, refreshes: refreshes)
            self.inhibitLogin = inhibitLogin
            self.guestToken = guestToken
        }
    }

    /// What came of it.
    public enum RegistrationOutcome: Sendable {
        case registered(UserID, Session?)
        /// More authentication is needed: the body of the answer with status 401.
        case challenge(JSONObject)
    }

    /// The stages that whoever registers goes through.
    private func registrationFlows() throws -> [[InteractiveAuthentication.Stage]] {
        let terms: [InteractiveAuthentication.Stage] = settings.terms.isEmpty ? [] : [.terms]
        switch settings.mode {
        case .closed:
            throw MatrixError.forbidden("Registration is closed here; ask whoever runs this server for an account.")
        case .open: return [terms.isEmpty ? [.dummy] : terms]
        case .token: return [[.registrationToken] + terms]
        }
    }

    /// Registers an account after interactive authentication (Client-Server API, "Account registration").
    public func register(_ request: RegistrationRequest, auth: JSONView?) async throws -> RegistrationOutcome {
        let flows = try registrationFlows()
        // An account without the session that was asked for would use up the name, and the token, for nothing.
        try request.session.check()
        let guest = try await guest(upgradedBy: request)
        // A name that can't be had is told before anybody goes through the stages.
        if let username = request.username, guest == nil { try await checkAvailable(username) }
        let outcome = try await interactive.advance(
            auth, operation: "register", flows: flows, params: termsParams
        ) { stage, auth in try await self.completeRegistration(stage, auth) }
        guard case .complete(let session, let completed) = outcome else {
            guard case .challenge(let body) = outcome else { preconditionFailure("an outcome is one or the other") }
            return .challenge(body)
        }
        let token = completed[InteractiveAuthentication.Stage.registrationToken.name]?.stringValue
        let now = surroundings.now()
        let finish = { (write: inout Write, nid: UserNID) in
            if let token { write.useRegistrationToken(token, at: now) }
            if let session { write.endInteractiveSession(session) }
            for policy in Set(self.settings.terms.map { [$0.policy, $0.version] }) {
                write.acceptPolicy(policy[0], version: policy[1], by: nid, at: now)
            }
        }
        let nid: UserNID
        let userID: UserID
        do {
            if let guest {
                (nid, userID) = try await upgrade(guest, password: request.password, finish)
            } else {
                (nid, userID) = try await createAccount(
                    localpart: request.username, password: request.password, admin: false, extra: finish)
            }
        } catch DatabaseError.conflict(let what) {
            throw MatrixError.forbidden("Registration did not go through: \(what). Begin anew.")
        }
        if request.inhibitLogin { return .registered(userID, nil) }
        return .registered(userID, try await begin(nid, userID, request.session))
    }

    /// Completes a stage of a registration; answers what is to be remembered of it.
    func completeRegistration(_ stage: InteractiveAuthentication.Stage, _ auth: JSONView) async throws -> JSON {
        switch stage {
        case .registrationToken:
            guard let token = auth["token"]?.string else { throw MatrixError.missingParam("token") }
            guard try await isValidRegistrationToken(token) else {
                throw MatrixError(.unauthorized, "This registration token is unknown, used up or expired.", status: 401)
            }
            return .string(token)
        case .dummy, .terms: return true
        case .password: throw MatrixError.forbidden("There is no password yet that could be checked.")
        }
    }

    /// The policies that have to be accepted (Client-Server API, "Terms of service at registration").
    var termsParams: JSON {
        guard !settings.terms.isEmpty else { return [:] }
        var policies: JSON = [:]
        for document in settings.terms {
            var policy = policies[document.policy] ?? ["version": .string(document.version)]
            policy[document.language] = ["name": .string(document.name), "url": .string(document.url)]
            policies[document.policy] = policy
        }
        return [InteractiveAuthentication.Stage.terms.name: ["policies": policies]]
    }

    // MARK: - Guests

    /// Makes an account that may look around (Client-Server API, "Guest Access").
    ///
    /// - Throws: `M_GUEST_ACCESS_FORBIDDEN` if guests aren't welcome.
    public func registerGuest(_ session: SessionRequest) async throws -> Session {
        guard settings.guests else {
            throw MatrixError(.guestAccessForbidden, "There are no guest accounts on this server.")
        }
        try session.check()
        let (nid, userID) = try await createAccount(
            localpart: "guest-" + surroundings.randomText(16, from: "abcdefghijkmnpqrstuvwxyz23456789"), password: nil,
            admin: false, standing: .guest)
        return try await begin(nid, userID, session)
    }

    /// The guest who wants to stay, checked: the name must be the one that the guest has.
    private func guest(upgradedBy request: RegistrationRequest) async throws -> Requester? {
        guard let token = request.guestToken else { return nil }
        let requester = try await tokens.requester(for: token)
        guard requester.isGuest else { throw MatrixError.forbidden("This is not the access token of a guest.") }
        if requester.isLocked { throw MatrixError.userLocked }
        guard let username = request.username, userID(named: username) == requester.userID else {
            throw MatrixError.forbidden("A guest who stays keeps the name: “username” must be the guest's.")
        }
        return requester
    }

    private func upgrade(
        _ guest: Requester, password: String?, _ finish: (inout Write, UserNID) -> Void
    ) async throws -> (UserNID, UserID) {
        let hash = try await password.asyncMap { try await self.hash($0) }
        var write = Write()
        write.upgradeGuest(guest.nid, passwordHash: hash)
        finish(&write, guest.nid)
        try await database.write(write)
        try await tokens.sessionsEnded()
        return (guest.nid, guest.userID)
    }

    // MARK: - Application services

    /// Makes a user of an application service, without a password (Application Service API, "Server admin style permissions").
    ///
    /// - Parameter token: the `as_token` of the service.
    /// - Throws: `M_UNKNOWN_TOKEN`, `M_EXCLUSIVE`, `M_USER_IN_USE`.
    public func register(_ request: RegistrationRequest, byAppservice token: String) async throws
        -> (UserID, Session?)
    {
        guard let id = appservices.id(of: token) else { throw MatrixError.unknownToken() }
        guard let username = request.username else { throw MatrixError.missingParam("username") }
        try request.session.check()
        try await checkAvailable(username, by: id)
        let (nid, userID) = try await createAccount(localpart: username, password: nil, admin: false)
        if request.inhibitLogin { return (userID, nil) }
        return (userID, try await begin(nid, userID, request.session))
    }

    /// Begins a session of a user of an application service.
    ///
    /// - Throws: `M_UNKNOWN_TOKEN`, `M_EXCLUSIVE` for users of others, `M_FORBIDDEN` for users that don't exist.
    public func logIn(user: String, byAppservice token: String, _ request: SessionRequest) async throws -> Session {
        guard let id = appservices.id(of: token) else { throw MatrixError.unknownToken() }
        let none = MatrixError.forbidden("There is no such user; the application service must register it first.")
        guard let userID = userID(named: user) else { throw none }
        try appservices.checkMayCreate(userID, by: id)
        guard let account = try await database.account(of: userID), !account.isDeactivated else { throw none }
        if account.standing.contains(.locked) { throw MatrixError.userLocked }
        return try await begin(account.nid, account.userID, request)
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
        guard settings.sharedSecret != nil else {
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
        guard let sharedSecret = settings.sharedSecret else {
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
        return try await begin(nid, userID, SessionRequest())
    }
}
