/// A refresh token (Client-Server API, "Refreshing access tokens"), known by its hash.
public struct RefreshToken: Sendable {
    public let hash: [UInt8]
    public let user: UserNID
    public let deviceID: String
    /// The token that it came of, while that is still valid.
    public let parent: [UInt8]?
    /// Whether one that came of it has been used: it is not valid any more.
    public let isSpent: Bool
}

/// An access token and the refresh token for the next one, by their hashes.
public struct TokenPair: Sendable {
    public let access: [UInt8]
    public let refresh: [UInt8]
    /// When the access token expires, in milliseconds since 1970.
    public let expiresTS: Int64

    public init(access: [UInt8], refresh: [UInt8], expiresTS: Int64) {
        self.access = access
        self.refresh = refresh
        self.expiresTS = expiresTS
    }
}

extension Database {
    private static let find = Statement(
        "SELECT user_nid, device_id, parent_hash, spent FROM refresh_tokens WHERE token_hash = $1")

    public func refreshToken(_ hash: [UInt8]) async throws -> RefreshToken? {
        try await readOnce { reader in
            try await reader.first(Self.find, [.blob(hash)]) { row in
                RefreshToken(
                    hash: hash, user: UserNID(row.integer(0)), deviceID: row.text(1), parent: row.optionalBlob(2),
                    isSpent: row.flag(3))
            }
        }
    }
}

extension Write {
    private static let insert = Statement(
        """
        INSERT INTO refresh_tokens (token_hash, user_nid, device_id, parent_hash, created_ts) VALUES ($1, $2, $3, $4, $5)
        """)
    private static let hold = Statement("UPDATE refresh_tokens SET spent = 0 WHERE token_hash = $1 AND spent = 0")
    private static let forgetSpent = Statement(
        "DELETE FROM refresh_tokens WHERE user_nid = $1 AND device_id = $2 AND spent = 1 AND created_ts < $3")
    private static let endAccessOfChildren = Statement(
        """
        DELETE FROM access_tokens WHERE refresh_hash IN (SELECT token_hash FROM refresh_tokens WHERE parent_hash = $1)
        """)
    private static let endChildren = Statement("DELETE FROM refresh_tokens WHERE parent_hash = $1")
    private static let endAccess = Statement("DELETE FROM access_tokens WHERE refresh_hash = $1")
    private static let spend = Statement("UPDATE refresh_tokens SET spent = 1 WHERE token_hash = $1")
    private static let orphan = Statement("UPDATE refresh_tokens SET parent_hash = NULL WHERE parent_hash = $1")

    /// Begins a session whose access token expires.
    public mutating func logIn(
        _ user: UserNID, deviceID: String, displayName: String?, tokens: TokenPair, at time: Int64
    ) {
        putDevice(deviceID, of: user, displayName: displayName, at: time)
        endTokens(of: deviceID, of: user)
        insert(tokens, of: user, deviceID, parent: nil, at: time)
    }

    private mutating func insert(
        _ tokens: TokenPair, of user: UserNID, _ deviceID: String, parent: [UInt8]?, at time: Int64
    ) {
        run(Self.insert, .blob(tokens.refresh), user.value, .text(deviceID), .optional(parent), .integer(time))
        insertToken(
            tokens.access, of: user, deviceID, expires: tokens.expiresTS, refresh: tokens.refresh, at: time)
    }

    /// Gives out a new pair for a refresh token, which stays valid until one of the pair is used; a pair that it gave before and
    /// nobody used is void. Fails as a conflict if the token was spent meanwhile.
    ///
    /// - Parameter memory: how long spent tokens are known, in milliseconds.
    public mutating func refresh(_ token: RefreshToken, to tokens: TokenPair, at time: Int64, memory: Int64) {
        expect(1, otherwise: "the refresh token is spent", Self.hold, .blob(token.hash))
        if let parent = token.parent { spendRefreshToken(parent) }
        run(Self.endAccessOfChildren, .blob(token.hash))
        run(Self.endChildren, .blob(token.hash))
        run(Self.forgetSpent, token.user.value, .text(token.deviceID), .integer(time - memory))
        insert(tokens, of: token.user, token.deviceID, parent: token.hash, at: time)
    }

    /// What came of a refresh token has been used: the token and its access token are over.
    public mutating func spendRefreshToken(_ hash: [UInt8]) {
        run(Self.orphan, .blob(hash))
        run(Self.endAccess, .blob(hash))
        run(Self.spend, .blob(hash))
    }
}
