import Database
import MatrixCore
import Synchronization

/// A user's push rules (Client-Server API, module "Push Notifications", "Push Rules: API"). They are kept as account data once
/// the user has changed anything; until then the defaults hold.
///
/// The rules about threads (MSC4306) are shown and hold only while the server has them; what a user set of them is kept meanwhile.
public final class PushRuleService: Sendable {
    private let database: Database
    /// Whether there are rules about threads.
    let followsThreads: Bool
    /// The lock protects the cache; nothing is awaited while it is held.
    private let compiled = Mutex(Cache())

    private struct Cache {
        var rules = BoundedCache<UserNID, CompiledPushRules>(capacity: 64 << 20)
        var changes = 0
    }

    init(database: Database, followsThreads: Bool) {
        self.database = database
        self.followsThreads = followsThreads
    }

    /// A user's rules were changed, here or on another node.
    func note(_ topics: [Topic]) {
        for topic in topics {
            switch topic {
            case .pushRules(let user):
                compiled.withLock { cache in
                    cache.changes += 1
                    cache.rules.remove(user)
                }
            case .everything: compiled.withLock { $0 = Cache(changes: $0.changes + 1) }
            default: break
            }
        }
    }

    /// A user's rules, ready for use.
    func compiled(for user: UserID, _ nid: UserNID) async throws -> CompiledPushRules {
        let (known, changes) = compiled.withLock { ($0.rules[nid], $0.changes) }
        if let known { return known }
        let rules = try await stored(of: nid).map { CompiledPushRules(adapted($0)) } ?? CompiledPushRules()
        compiled.withLock { cache in
            if cache.changes == changes { cache.rules.insert(rules, for: nid, size: rules.bytes) }
        }
        return rules
    }

    static let type = "m.push_rules"

    /// The rules that hold for a user.
    func rules(of user: UserID, _ nid: UserNID) async throws -> PushRuleSet {
        try await stored(of: nid).map(adapted) ?? defaults(for: user)
    }

    /// The rules that every user of this server starts with.
    func defaults(for user: UserID) -> PushRuleSet { .defaults(for: user, followingThreads: followsThreads) }

    /// Rules as they hold now: they may have been stored when there were none about threads, or were some.
    private func adapted(_ rules: PushRuleSet) -> PushRuleSet {
        var adapted = rules
        adapted[.postcontent] =
            followsThreads ? PushRuleSet.threads.map { rules.rule($0.id, kind: .postcontent) ?? $0 } : []
        return adapted
    }

    /// Account data as clients get it.
    func shown(_ entry: AccountDataEntry) throws -> AccountDataEntry {
        guard entry.room == nil, entry.type == Self.type else { return entry }
        let rules = try JSONDocument(parsing: entry.content, limits: .own).root["global"]
        if !followsThreads, rules?[PushRule.Kind.postcontent.rawValue] == nil { return entry }
        let content = Self.content(adapted(PushRuleSet(rules?.json ?? [:])))
        return AccountDataEntry(room: nil, type: entry.type, content: content.encoded())
    }

    /// The account data of a user who has never changed a rule: nowhere stored, and clients need it all the same.
    func unchanged(for user: UserID) -> AccountDataEntry {
        AccountDataEntry(room: nil, type: Self.type, content: Self.content(defaults(for: user)).encoded())
    }

    /// The rules of a user who has changed any. What can't be read is as if it weren't there: rooms don't wait for one member's rules.
    private func stored(of user: UserNID) async throws -> PushRuleSet? {
        try await database.accountData(of: user, room: nil, type: Self.type).flatMap(Self.parse)
    }

    private static func parse(_ content: [UInt8]) -> PushRuleSet? {
        guard let stored = try? JSONDocument(parsing: content, limits: .own) else { return nil }
        return PushRuleSet(stored.root["global"]?.json ?? [:])
    }

    public func rules(of requester: Requester) async throws -> PushRuleSet {
        try await rules(of: requester.userID, requester.nid)
    }

    /// The account data event content of rules.
    static func content(_ rules: PushRuleSet) -> JSON { ["global": rules.json] }

    /// - Throws: `M_NOT_FOUND`.
    public func rule(_ id: String, kind: PushRule.Kind, of requester: Requester) async throws -> PushRule {
        guard let rule = try await rules(of: requester).rule(id, kind: kind) else { throw Self.unknown }
        return rule
    }

    /// Bytes that all rules of a user take, as they are kept in memory: each event of each room that the user is in is held against all
    /// of them (A14). Two thousand muted rooms have place.
    private static let largest = 16 << 20
    /// How many of them may be the user's own.
    private static let most = 3_000

    private static let unknown = MatrixError.notFound("There is no such push rule.")

    /// - Throws: `M_TOO_LARGE` if rules are too many or too large, unless they are no more than before.
    private static func check(_ rules: PushRuleSet, insteadOf old: PushRuleSet) throws {
        let new = CompiledPushRules(rules)
        if new.bytes <= largest, new.count <= most { return }
        let before = CompiledPushRules(old)
        guard new.bytes <= max(largest, before.bytes), new.count <= max(most, before.count) else {
            throw MatrixError.tooLarge("Your push rules are too many or too large together; remove some first.")
        }
    }

    private func change(_ requester: Requester, _ change: (inout PushRuleSet) throws -> Void) async throws {
        try await AccountDataService.untilUndisturbed {
            let entry = try await database.storedAccountData(of: requester.nid, room: nil, type: Self.type)
            let stored = entry.flatMap { Self.parse($0.content) }
            var rules = stored.map(adapted) ?? defaults(for: requester.userID)
            let old = rules
            try change(&rules)
            try Self.check(rules, insteadOf: old)
            if !followsThreads { rules[.postcontent] = stored?[.postcontent] ?? [] }
            var write = Write()
            write.replaceAccountData(
                entry, of: requester.nid, room: nil, type: Self.type, content: Self.content(rules).encoded())
            write.changePushRules(of: requester.nid)
            try await database.write(write)
        }
    }

    /// Adds a rule, or replaces the one with its ID.
    public func put(
        _ rule: PushRule, kind: PushRule.Kind, before: String?, after: String?, of requester: Requester
    ) async throws {
        // MSC4306: “servers MUST ensure that clients MUST NOT be able to create custom rules with this push rule kind”.
        guard rule.id.utf8.count <= 255 else {
            throw MatrixError.invalidParam("The ID of a push rule has at most 255 bytes.")
        }
        guard kind != .postcontent else {
            throw MatrixError.invalidParam("Push rules of the kind “\(kind.rawValue)” are the server's own.")
        }
        try await change(requester) { rules in
            do {
                try rules.set(rule, kind: kind, before: before, after: after)
            } catch PushRuleSet.PlacementError.reservedID {
                throw MatrixError.invalidParam("IDs of push rules that begin with a dot are the server's own.")
            } catch {
                throw MatrixError(.unknown, "The rule named by “before” or “after” is none of yours.", status: 400)
            }
        }
    }

    public func delete(_ id: String, kind: PushRule.Kind, of requester: Requester) async throws {
        try await change(requester) { rules in
            guard let rule = rules.rule(id, kind: kind) else { throw Self.unknown }
            guard !rule.isDefault else {
                throw MatrixError.invalidParam("The server's own push rules can be switched off, not removed.")
            }
            rules[kind].removeAll { $0.id.hasSameBytes(as: id) }
        }
    }

    /// Changes a rule where it stands.
    public func update(
        _ id: String, kind: PushRule.Kind, of requester: Requester, _ update: (inout PushRule) -> Void
    ) async throws {
        try await change(requester) { rules in
            guard let place = rules[kind].firstIndex(where: { $0.id.hasSameBytes(as: id) }) else {
                throw Self.unknown
            }
            update(&rules[kind][place])
        }
    }
}
