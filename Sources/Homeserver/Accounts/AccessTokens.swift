import Database
import MatrixCore
import Synchronization

/// Finds out whose access token a request carries (Client-Server API, "Using access tokens").
///
/// Tokens are stored as hashes. Those used lately are kept in memory by their hash; ``sessionsEnded()`` drops them
/// when a session ends, before the end is acknowledged. Where several nodes share the database, a session may end on another one, and
/// its end must hold here at once, not when this node happens to hear of it: while another one may be there, each request asks the
/// database.
public final class AccessTokens: Sendable {
    private let database: Database
    private let surroundings: Surroundings

    private struct Known: Sendable {
        var requester: Requester
        var expiresTS: Int64?
        /// ``Engine/solitude`` from before it was read.
        var solitude: Int?
    }

    private struct Cache {
        var byHash = BoundedCache<[UInt8], Known>(capacity: 20_000)
        /// Goes up with each session that ends; what was read before must not be kept after.
        var generation = 0
    }

    /// The lock protects the cache; nothing is awaited while it is held.
    private let cache = Mutex(Cache())

    init(database: Database, surroundings: Surroundings) {
        self.database = database
        self.surroundings = surroundings
    }

    /// A new token and the hash under which it is stored.
    func make() -> (token: String, hash: [UInt8]) {
        let token = "roost_" + Base64.encode(surroundings.randomBytes(32), alphabet: .urlSafe)
        return (token, Self.hash(token))
    }

    static func hash(_ token: String) -> [UInt8] { Hashing.sha256(Array(token.utf8)) }

    /// Whose token it is, if that is in memory and may be trusted; nil if it has to be looked up.
    public func known(_ token: String) throws -> Requester? {
        guard let solitude = database.engine.solitude else { return nil }
        let hash = Self.hash(token)
        guard let known = cache.withLock({ $0.byHash[hash] }), known.solitude == solitude else { return nil }
        return try check(known)
    }

    /// - Throws: `M_UNKNOWN_TOKEN` if it is nobody's, with `soft_logout` if it has expired.
    public func requester(for token: String) async throws -> Requester {
        let hash = Self.hash(token)
        let solitude = database.engine.solitude
        let (known, generation) = cache.withLock { ($0.byHash[hash], $0.generation) }
        if let known, solitude != nil, known.solitude == solitude { return try check(known) }
        guard let owner = try await database.owner(ofToken: hash), let userID = try await database.user(owner.user)
        else { throw MatrixError.unknownToken() }
        let found = Known(
            requester: Requester(
                nid: owner.user, userID: userID, deviceID: owner.deviceID, isAdmin: owner.isAdmin,
                standing: owner.standing),
            expiresTS: owner.expiresTS, solitude: solitude)
        if let spent = owner.spendsRefreshToken {
            // The client has received this token: those before it are over (Client-Server API, "Refreshing access tokens").
            _ = try check(found)
            var write = Write()
            write.spendRefreshToken(spent)
            try await database.write(write)
            try await sessionsEnded()
            return found.requester
        }
        cache.withLock { if $0.generation == generation { $0.byHash.insert(found, for: hash, size: 1) } }
        return try check(found)
    }

    private func check(_ known: Known) throws -> Requester {
        if let expires = known.expiresTS, surroundings.now() >= expires {
            throw MatrixError.unknownToken(softLogout: true)
        }
        return known.requester
    }

    /// Sessions have ended, or what their users may do has changed: once this returns, nothing read before holds any longer on any node.
    func sessionsEnded() async throws {
        cache.withLock { cache in
            cache.byHash.removeAll()
            cache.generation += 1
        }
        try await database.engine.nobodyElseRemembers()
    }
}
