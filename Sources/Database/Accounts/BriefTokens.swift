/// Tokens that are good for little and not for long, known by their hashes.
public enum BriefTokenKind: Int64, Sendable {
    /// One sign-in (Client-Server API, `POST /login/get_token`).
    case login = 1
    /// Telling another service who somebody is (Client-Server API, module "OpenID").
    case openID = 2
}

extension Database {
    private static let find = Statement(
        "SELECT user_nid FROM brief_tokens WHERE token_hash = $1 AND kind = $2 AND expires_ts > $3")

    /// Whose token it is; nil if it is nobody's or expired.
    public func user(ofBriefToken hash: [UInt8], _ kind: BriefTokenKind, at time: Int64) async throws -> UserNID? {
        try await readOnce { reader in
            try await reader.first(Self.find, [.blob(hash), .integer(kind.rawValue), .integer(time)]) {
                UserNID($0.integer(0))
            }
        }
    }
}

extension Write {
    private static let insert = Statement(
        "INSERT INTO brief_tokens (token_hash, kind, user_nid, expires_ts) VALUES ($1, $2, $3, $4)")
    private static let expire = Statement("DELETE FROM brief_tokens WHERE expires_ts <= $1")
    private static let use = Statement("DELETE FROM brief_tokens WHERE token_hash = $1 AND kind = $2")
    private static let end = Statement("DELETE FROM brief_tokens WHERE user_nid = $1")
    private static let endKind = Statement("DELETE FROM brief_tokens WHERE user_nid = $1 AND kind = $2")

    public mutating func insertBriefToken(
        _ hash: [UInt8], _ kind: BriefTokenKind, of user: UserNID, expires: Int64, now: Int64
    ) {
        run(Self.expire, .integer(now))
        run(Self.insert, .blob(hash), .integer(kind.rawValue), user.value, .integer(expires))
    }

    /// Uses a token up; fails as a conflict if it has been used.
    public mutating func useBriefToken(_ hash: [UInt8], _ kind: BriefTokenKind) {
        expect(1, otherwise: "the token has been used", Self.use, .blob(hash), .integer(kind.rawValue))
    }

    public mutating func endBriefTokens(of user: UserNID) { run(Self.end, user.value) }

    public mutating func endBriefTokens(of user: UserNID, _ kind: BriefTokenKind) {
        run(Self.endKind, user.value, .integer(kind.rawValue))
    }
}
