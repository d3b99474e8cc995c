import MatrixCore

/// A user's push rules, with what they change for whole rooms known beforehand: most users never change any, and most changes
/// concern single rooms.
struct CompiledPushRules: Sendable {
    /// nil: those that everybody starts with, which are many and mostly nobody's own, so they are made when they are needed.
    private let own: PushRuleSet?
    /// The rooms in which nothing notifies but what single rules say.
    private let mutedRooms: Set<ByteString>
    private let isMuted: Bool

    /// About what they take in memory, besides what all have in common.
    let bytes: Int
    /// How many are the user's own.
    let count: Int

    /// The rules that everybody starts with, by their IDs, less those that name the user.
    private static let common: [ByteString: PushRule] = {
        let rules = PushRuleSet.defaults(for: UserID(unchecked: "@:"), followingThreads: true)
        return Dictionary(PushRule.Kind.allCases.flatMap { rules[$0] }.map { (ByteString($0.id), $0) }) { $1 }
    }()

    init() {
        own = nil
        bytes = 64
        count = 0
        mutedRooms = []
        isMuted = false
    }

    init(_ rules: PushRuleSet) {
        var (shared, bytes) = (rules, 1_024)
        for kind in PushRule.Kind.allCases {
            shared[kind] = rules[kind].map { rule in
                guard rule.isDefault, let common = Self.common[ByteString(rule.id)],
                    common.conditions.map(\.json) == rule.conditions.map(\.json)
                else {
                    bytes += rule.compiledBytes
                    return rule
                }
                var rule = rule
                rule.conditions = common.conditions
                bytes += 256
                return rule
            }
        }
        own = shared
        self.bytes = bytes
        count = PushRule.Kind.allCases.reduce(0) { $0 + rules[$1].count { !$0.isDefault } }
        var muted: Set<ByteString> = []
        for kind in PushRule.Kind.allCases {
            for rule in rules[kind] where !rule.isDefault && rule.isEnabled && !rule.actions.notify {
                if let room = Self.room(of: rule, kind) { muted.insert(room) }
            }
        }
        isMuted = rules.rule(".m.rule.master", kind: .override)?.isEnabled == true
        mutedRooms = muted
    }

    /// The room that a rule is about, if it is about all events of one room.
    private static func room(of rule: PushRule, _ kind: PushRule.Kind) -> ByteString? {
        if kind == .room { return ByteString(rule.id) }
        guard kind.hasConditions, rule.conditions.count == 1,
            let condition = rule.conditions.first?.json, condition["kind"] == "event_match",
            condition["key"] == "room_id", let pattern = condition["pattern"]?.stringValue,
            !pattern.utf8.contains(where: { $0 == UInt8(ascii: "*") || $0 == UInt8(ascii: "?") })
        else { return nil }
        return ByteString(pattern)
    }

    /// What an event is to the user.
    ///
    /// - Parameter defaults: the rules that the user starts with.
    func actions(
        for event: Event, user: UserID, in context: PushContext, otherwise defaults: @autoclosure () -> PushRuleSet
    ) -> PushActions {
        (own ?? defaults()).actions(for: event, user: user, in: context)
    }

    /// Whether an event of the room that notifies everybody doesn't notify the user, unless it is noted.
    func mutes(_ room: RoomID) -> Bool { isMuted || mutedRooms.contains(ByteString(room.string)) }
}
