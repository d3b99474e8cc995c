import Database
import MatrixCore

/// Sessions: how they begin, go on and end (Client-Server API, "Login", "Refreshing access tokens", "Logout").
extension AccountService {
    /// Checks a password.
    ///
    /// - Throws: `M_FORBIDDEN`, with the same words and after the same time whether the account or the password is wrong;
    ///   `M_USER_LOCKED` only to whom it could be told anyway.
    public func logIn(
        user: String, password: String, deviceID: String?, displayName: String?, refreshes: Bool = false
    ) async throws -> Session {
        let wrong = MatrixError.forbidden("The user name or the password is wrong.")
        var account: Account?
        if let userID = userID(named: user), password.utf8.count <= Self.longestPassword {
            account = try await database.account(of: userID)
            if account == nil {
                account = try await database.account(of: UserID(unchecked: userID.string.lowercased()))
            }
        }
        let hash = account?.passwordHash ?? decoy
        let fits = try await verify(
            password, hash, of: (userID(named: user)?.string ?? user.shortened(to: 255)).lowercased())
        guard fits, let account, account.passwordHash != nil, !account.isDeactivated else { throw wrong }
        if account.standing.contains(.locked) { throw MatrixError.userLocked }
        let request = SessionRequest(deviceID: deviceID, displayName: displayName, refreshes: refreshes)
        let session: Session
        do {
            session = try await begin(account.nid, account.userID, request) {
                $0.requirePasswordHash(hash, of: account.nid)
            }
        } catch DatabaseError.conflict { throw wrong }
        try await renew(hash, of: account.nid, password)
        return session
    }

    /// The local user whom somebody means by a name or a user ID.
    func userID(named name: String) -> UserID? {
        let userID = name.utf8.first == UInt8(ascii: "@") ? UserID(name) : UserID("@\(name.lowercased()):\(serverName)")
        return userID.flatMap { $0.server == serverName ? $0 : nil }
    }

    /// Hashes of another kind, which came with accounts from elsewhere, are replaced by ours as soon as the password is known.
    private func renew(_ hash: String, of user: UserNID, _ password: String) async throws {
        guard !PasswordHash.isCurrent(hash) else { return }
        var write = Write()
        write.replacePasswordHash(hash, by: try await self.hash(password), of: user)
        try await database.write(write)
    }

    /// Gives a device of the user, new or known, an access token.
    ///
    /// - Parameter extra: what must happen together with it.
    func begin(
        _ nid: UserNID, _ userID: UserID, _ request: SessionRequest, extra: (inout Write) -> Void = { _ in }
    ) async throws -> Session {
        try request.check()
        if let deviceID = request.deviceID { try await checkIsNoCrossSigningKey(deviceID, of: nid) }
        let device = request.deviceID ?? surroundings.randomText(10, from: "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
        let name = request.displayName.map { $0.shortened(to: 100) }
        let (token, hash) = tokens.make()
        let now = surroundings.now()
        var session = Session(userID: userID, deviceID: device, accessToken: token)
        var write = Write()
        extra(&write)
        if request.refreshes {
            let (refresh, refreshHash) = tokens.make()
            session.refreshToken = refresh
            session.expiresInMS = tokenLifetime
            let pair = TokenPair(access: hash, refresh: refreshHash, expiresTS: now + tokenLifetime)
            write.logIn(nid, deviceID: device, displayName: name, tokens: pair, at: now)
        } else {
            write.logIn(nid, deviceID: device, displayName: name, tokenHash: hash, at: now)
        }
        try await database.write(write)
        // The device may have had another token before.
        if request.deviceID != nil { try await tokens.sessionsEnded() }
        return session
    }

    // MARK: - Refreshing

    private var tokenLifetime: Int64 { Int64(settings.tokenLifetime) * 1_000 }
    /// How long it is noticed that a spent refresh token is used again.
    private static let spentMemory: Int64 = 24 * 3_600_000

    /// Exchanges a refresh token for a new pair of tokens (`POST /refresh`).
    ///
    /// A refresh token that is spent must be known to two parties: then all tokens of the device end, and whoever knows the
    /// password goes on with it.
    ///
    /// - Throws: `M_UNKNOWN_TOKEN`, `M_USER_LOCKED`.
    public func refresh(_ refreshToken: String) async throws -> Session {
        let hash = AccessTokens.hash(refreshToken)
        guard let token = try await database.refreshToken(hash),
            let account = try await database.account(token.user), !account.isDeactivated
        else { throw MatrixError.unknownToken() }
        if account.standing.contains(.locked) { throw MatrixError.userLocked }
        if token.isSpent {
            try await endTokens(of: token)
            throw MatrixError.unknownToken(softLogout: true)
        }
        let (access, accessHash) = tokens.make(), (refresh, refreshHash) = tokens.make()
        let now = surroundings.now()
        var write = Write()
        let pair = TokenPair(access: accessHash, refresh: refreshHash, expiresTS: now + tokenLifetime)
        write.refresh(token, to: pair, at: now, memory: Self.spentMemory)
        do { try await database.write(write) } catch DatabaseError.conflict {
            // It was spent between the two looks.
            throw MatrixError.unknownToken(softLogout: true)
        }
        try await tokens.sessionsEnded()
        return Session(
            userID: account.userID, deviceID: token.deviceID, accessToken: access, refreshToken: refresh,
            expiresInMS: tokenLifetime)
    }

    private func endTokens(of token: RefreshToken) async throws {
        var write = Write()
        write.endTokens(of: token.deviceID, of: token.user)
        try await database.write(write)
        try await tokens.sessionsEnded()
    }

    // MARK: - Tokens for one sign-in

    /// Two minutes, as the specification recommends.
    public static let loginTokenLifetime: Int64 = 120_000

    /// A token with which another device of the user signs in, once and soon.
    func makeLoginToken(for user: UserNID, _ write: inout Write) -> String {
        let (token, hash) = tokens.make()
        let now = surroundings.now()
        write.insertBriefToken(hash, .login, of: user, expires: now + Self.loginTokenLifetime, now: now)
        return token
    }

    /// Signs in with such a token.
    ///
    /// - Throws: `M_FORBIDDEN` if it is unknown, used or too old.
    public func logIn(token: String, _ request: SessionRequest) async throws -> Session {
        let wrong = MatrixError.forbidden("The login token is unknown, has been used, or is too old.")
        let hash = AccessTokens.hash(token)
        guard let user = try await database.user(ofBriefToken: hash, .login, at: surroundings.now()),
            let account = try await database.account(user), !account.isDeactivated
        else { throw wrong }
        if account.standing.contains(.locked) { throw MatrixError.userLocked }
        do {
            return try await begin(account.nid, account.userID, request) { $0.useBriefToken(hash, .login) }
        } catch DatabaseError.conflict { throw wrong }
    }

    // MARK: - Ending

    /// Ends the requester's session; the device goes with it (`POST /logout`).
    public func logOut(_ requester: Requester) async throws {
        var write = Write()
        write.deleteDevice(requester.deviceID, of: requester.nid)
        write.endBriefTokens(of: requester.nid)
        try await database.announceDevices(of: requester.nid, in: &write)
        try await database.write(write)
        try await tokens.sessionsEnded()
    }

    /// Ends all sessions of the requester (`POST /logout/all`).
    public func logOutAll(_ requester: Requester) async throws {
        var write = Write()
        write.deleteAllDevices(of: requester.nid)
        try await database.announceDevices(of: requester.nid, in: &write)
        try await database.write(write)
        try await tokens.sessionsEnded()
    }
}
