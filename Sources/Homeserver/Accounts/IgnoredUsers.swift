import Database
import MatrixCore
import Synchronization

/// Whom users don't want to hear of (Client-Server API, "Ignoring Users").
final class IgnoredUsers: Sendable {
    private struct Cache {
        var lists = BoundedCache<UserNID, Set<UserNID>>(capacity: 200_000)
        var changes = 0
    }

    private let database: Database
    /// The lock protects the cache; nothing is awaited while it is held.
    private let cache = Mutex(Cache())

    init(database: Database) { self.database = database }

    static let type = "m.ignored_user_list"
    /// Names of a list that count.
    private static let most = 10_000

    /// A user's account data changed, here or on another node.
    func note(_ topics: [Topic]) {
        for topic in topics {
            switch topic {
            case .user(let user):
                cache.withLock { cache in
                    cache.changes += 1
                    cache.lists.remove(user)
                }
            case .everything: cache.withLock { $0 = Cache(changes: $0.changes + 1) }
            default: break
            }
        }
    }

    /// The users whom a user ignores. In memory, as a rule.
    func list(of user: UserNID) async throws -> Set<UserNID> {
        let (known, changes) = cache.withLock { ($0.lists[user], $0.changes) }
        if let known { return known }
        var list: Set<UserNID> = []
        if let content = try await database.accountData(of: user, room: nil, type: Self.type) {
            var names: [UserID] = []
            if let users = try JSONDocument(parsing: content, limits: .own).root["ignored_users"] {
                for (name, _) in users.members.prefix(Self.most) { if let name = UserID(name) { names.append(name) } }
            }
            list = Set(try await database.existingNumbers(ofUsers: names).values)
            // A list that names everybody doesn't silence oneself.
            list.remove(user)
        }
        let found = list
        cache.withLock { cache in
            if cache.changes == changes { cache.lists.insert(found, for: user, size: 1 + found.count) }
        }
        return found
    }
}
