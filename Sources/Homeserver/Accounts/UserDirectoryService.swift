import Database
import MatrixCore

/// Finding people by name (Client-Server API, "User Directory").
///
/// People are found by the beginnings of the words of their names: as one types. Who shares no room with the asker, and is in no
/// room that everybody may see, isn't found at all.
public final class UserDirectoryService: Sendable {
    private let database: Database
    private let ignored: IgnoredUsers

    init(database: Database, ignored: IgnoredUsers) {
        self.database = database
        self.ignored = ignored
    }

    /// Words of a name, and of a search, that count, and the bytes of each.
    private static let mostWords = 10
    private static let longestWord = 64
    /// People looked at for one search: a single letter may fit everybody.
    private static let mostCandidates = 2_000
    private static let largestPage = 100

    /// The words by which a user is found.
    static func words(_ user: UserID, displayName: String?) -> Set<[UInt8]> {
        var words = split(displayName ?? "")
        words.formUnion(split(user.localpart))
        words.insert(Array(user.localpart.lowercased().utf8.prefix(longestWord)))
        return words
    }

    private static func split(_ text: String) -> Set<[UInt8]> {
        let parts = text.lowercased().split { !$0.isLetter && !$0.isNumber }.prefix(mostWords)
        return Set(parts.map { Array($0.utf8.prefix(longestWord)) })
    }

    /// - Returns: the answer of `POST /user_directory/search`: best first are those whose name is what was asked for.
    public func search(_ term: String, limit: Int, for requester: Requester) async throws -> JSON {
        var text = term.lowercased()
        // Whole user IDs are found by their local parts.
        if text.utf8.first == UInt8(ascii: "@") { text.removeFirst() }
        let name = String(text.prefix { $0 != ":" })
        let whole = Array(name.utf8.prefix(Self.longestWord))
        let words = Self.split(name)
        let limit = min(max(limit, 0), Self.largestPage)
        if words.isEmpty || limit == 0 { return ["results": [], "limited": false] }
        let hidden = try await ignored.list(of: requester.nid)
        return try await database.read { reader in
            var found = Set(
                try await self.database.users(withWord: whole, limit: Self.mostCandidates, reader))
            var common: Set<UserNID>?
            for word in words {
                let users = Set(try await self.database.users(withWord: word, limit: Self.mostCandidates, reader))
                common = common?.intersection(users) ?? users
            }
            found.formUnion(common ?? [])
            found.subtract(hidden)
            found.remove(requester.nid)
            let candidates = Array(found.sorted().prefix(Self.mostCandidates))
            let visible = try await self.database.users(candidates, visibleTo: requester.nid, reader)
            let people = try await self.people(visible.sorted(), name)
            return [
                "results": .array(people.prefix(limit).map(\.json)), "limited": .bool(people.count > limit),
            ]
        }
    }

    private func people(_ users: [UserNID], _ name: String) async throws -> [(rank: Int, json: JSON)] {
        let names = try await database.users(users)
        var people: [(rank: Int, id: String, json: JSON)] = []
        for user in users {
            guard let userID = names[user], let account = try await database.account(user), !account.isDeactivated
            else { continue }
            var json: JSONObject = ["user_id": .string(userID.string)]
            if let name = account.displayName { json["display_name"] = .string(name) }
            if let avatar = account.avatarURL { json["avatar_url"] = .string(avatar) }
            let display = account.displayName?.lowercased() ?? ""
            let isSame = display == name || userID.localpart.lowercased() == name
            let begins = display.hasPrefix(name) || userID.localpart.lowercased().hasPrefix(name)
            people.append((isSame ? 0 : begins ? 1 : 2, userID.string, .object(json)))
        }
        people.sort { ($0.rank, $0.id) < ($1.rank, $1.id) }
        return people.map { ($0.rank, $0.json) }
    }
}
