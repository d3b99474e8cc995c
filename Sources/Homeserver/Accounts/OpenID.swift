import Database
import MatrixCore

/// Tokens that tell another service who somebody is, and nothing else (Client-Server API, module "OpenID").
extension AccountService {
    /// An hour.
    public static let openIDLifetime: Int64 = 3_600_000

    public func makeOpenIDToken(for requester: Requester) async throws -> String {
        let (token, hash) = tokens.make()
        let now = surroundings.now()
        var write = Write()
        write.insertBriefToken(hash, .openID, of: requester.nid, expires: now + Self.openIDLifetime, now: now)
        try await database.write(write)
        return token
    }

    /// Whose token it is, for the service that was given it; nil if it is nobody's, expired, or its user is gone.
    public func user(ofOpenIDToken token: String) async throws -> UserID? {
        let hash = AccessTokens.hash(token)
        guard let nid = try await database.user(ofBriefToken: hash, .openID, at: surroundings.now()),
            let account = try await database.account(nid), !account.isDeactivated, !account.standing.contains(.locked)
        else { return nil }
        return account.userID
    }
}
