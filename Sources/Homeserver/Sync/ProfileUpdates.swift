import Database
import MatrixCore

/// What others show of themselves, as syncs tell it (MSC4262, MSC4429).
struct ProfileUpdates {
    /// nil: the client may forget the user, who shares no room any more.
    typealias Change = [(field: String, value: JSON?)]

    var users: [(user: UserID, change: Change?)] = []

    var isEmpty: Bool { users.isEmpty }

    /// People who are introduced in one answer. Clients ask for the profiles of others when they need them.
    static let most = 1_000

    /// What is to be told, and to whom.
    struct Wanted {
        let requester: Requester
        /// The names of fields; nil: all.
        let fields: Set<ByteString>?
        /// The position up to which the client knows; nil: it knows nothing.
        let since: Int64?
        let upTo: Int64
        /// People whom the client hasn't been told of.
        var introduced: Set<UserNID>
        /// Who shares a room now and didn't, or did and doesn't.
        let lists: DeviceListChanges
    }

    static func read(_ wanted: Wanted, _ database: Database, _ reader: any Reader) async throws -> ProfileUpdates {
        var introduced = wanted.introduced
        var changed: [UserNID: Set<String>] = [:]
        if let since = wanted.since {
            changed = try await database.profileChanges(
                sharingWith: wanted.requester.nid, after: since, upTo: wanted.upTo, reader)
            let new = try await database.existingNumbers(ofUsers: Array(wanted.lists.changed))
            introduced.formUnion(new.values)
        } else {
            introduced.insert(wanted.requester.nid)
        }
        let chosen = Array(introduced.sorted().prefix(most))
        let all = Array(Set(chosen).union(changed.keys)).sorted()
        let profiles = try await database.profiles(of: all, reader)
        let names = try await database.users(all)
        var updates = ProfileUpdates()
        let isIntroduced = Set(chosen)
        for user in all {
            guard let name = names[user], let profile = profiles[user] else { continue }
            var values: [String: JSON] = profile.fields.mapValues { .raw($0) }
            values["displayname"] = profile.name.map { .string($0) }
            values["avatar_url"] = profile.avatar.map { .string($0) }
            var fields = changed[user] ?? []
            if isIntroduced.contains(user) { fields.formUnion(values.keys) }
            let change = fields.filter { wanted.fields?.contains(ByteString($0)) ?? true }.sorted().map {
                (field: $0, value: values[$0])
            }
            if !change.isEmpty { updates.users.append((name, change)) }
        }
        for user in wanted.lists.left.sorted() { updates.users.append((user, nil)) }
        return updates
    }

    /// As `/sync` has it: null for a field that is gone.
    var json: JSON {
        .object(
            JSONObject(
                users.map { user, change in
                    let fields = change.map { JSON.object(JSONObject($0.map { ($0.field, $0.value ?? .null) })) }
                    return (user.string, ["profile_updates": fields ?? .null] as JSON)
                }))
    }

    /// As sliding sync has it: what was set apart from what is gone.
    var slidingJSON: JSON {
        .object(
            JSONObject(
                users.map { user, change in
                    guard let change else { return (user.string, .null) }
                    var json: JSON = [:]
                    let updated = change.compactMap { one in one.value.map { (one.field, $0) } }
                    let removed = change.filter { $0.value == nil }.map { JSON.string($0.field) }
                    if !updated.isEmpty { json["updated"] = .object(JSONObject(updated)) }
                    if !removed.isEmpty { json["removed"] = .array(removed) }
                    return (user.string, json)
                }))
    }
}
