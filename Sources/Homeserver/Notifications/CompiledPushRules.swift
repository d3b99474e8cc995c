import Database
import MatrixCore
import Synchronization

/// A user's push rules, with what they change for whom known beforehand: most users never change any, and most changes
/// concern single rooms.
struct CompiledPushRules: Sendable {
    /// nil: those that everybody starts with, which are many and mostly nobody's own, so they are made when they are needed.
    private let own: PushRuleSet?
    /// Whether they may judge an event of any room otherwise than everybody's do.
    let deviatesEverywhere: Bool
    /// The rooms of which they judge events otherwise.
    let deviatingRooms: Set<ByteString>
    /// The rooms in which nothing notifies but what single rules say.
    private let mutedRooms: Set<ByteString>
    private let isMuted: Bool

    init() {
        own = nil
        deviatesEverywhere = false
        deviatingRooms = []
        mutedRooms = []
        isMuted = false
    }

    init(_ rules: PushRuleSet, for user: UserID) {
        own = rules
        var rooms: Set<ByteString> = []
        var muted: Set<ByteString> = []
        var everywhere = false
        let defaults = PushRuleSet.defaults(for: user)
        for kind in PushRule.Kind.allCases {
            for rule in rules[kind] {
                if rule.isDefault, let original = defaults.rule(rule.id, kind: kind) {
                    everywhere =
                        everywhere || rule.isEnabled != original.isEnabled
                        || rule.actions.notify != original.actions.notify
                        || rule.actions.highlight != original.actions.highlight
                } else if rule.isEnabled {
                    guard let room = Self.room(of: rule, kind) else {
                        everywhere = true
                        continue
                    }
                    rooms.insert(room)
                    if !rule.actions.notify { muted.insert(room) }
                }
            }
            // A rule of everybody's that is not there any more can't match.
            everywhere = everywhere || defaults[kind].contains { rules.rule($0.id, kind: kind) == nil }
        }
        isMuted = rules.rule(".m.rule.master", kind: .override)?.isEnabled == true
        deviatesEverywhere = everywhere
        deviatingRooms = rooms
        mutedRooms = muted
    }

    /// The room that a rule is about, if it is about all events of one room.
    private static func room(of rule: PushRule, _ kind: PushRule.Kind) -> ByteString? {
        if kind == .room { return ByteString(rule.id) }
        guard kind == .override || kind == .underride, rule.conditions.count == 1,
            let condition = rule.conditions.first?.json, condition["kind"] == "event_match",
            condition["key"] == "room_id", let pattern = condition["pattern"]?.stringValue,
            !pattern.utf8.contains(where: { $0 == UInt8(ascii: "*") || $0 == UInt8(ascii: "?") })
        else { return nil }
        return ByteString(pattern)
    }

    /// What an event is to the user.
    func actions(for event: Event, user: UserID, in context: PushContext) -> PushActions {
        (own ?? .defaults(for: user)).actions(for: event, user: user, in: context)
    }

    /// Whether the rules may judge events of the room otherwise than everybody's.
    func deviates(in room: RoomID) -> Bool { deviatesEverywhere || deviatingRooms.contains(ByteString(room.string)) }

    /// Whether an event of the room that notifies everybody doesn't notify the user, unless it is noted.
    func mutes(_ room: RoomID) -> Bool { isMuted || mutedRooms.contains(ByteString(room.string)) }
}
