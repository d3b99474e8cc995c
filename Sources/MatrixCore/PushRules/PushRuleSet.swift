/// All push rules of a user, in the order in which they are tried (Client-Server API, Push Rules).
public struct PushRuleSet: Sendable {
    private var rules: [PushRule.Kind: [PushRule]]

    public init(_ rules: [PushRule.Kind: [PushRule]] = [:]) { self.rules = rules }

    /// The rules of one kind, highest priority first.
    public subscript(kind: PushRule.Kind) -> [PushRule] {
        get { rules[kind] ?? [] }
        set { rules[kind] = newValue }
    }

    /// Reads the `global` rule set as clients exchange it. Rules that cannot be read are left out.
    public init(_ json: JSON) {
        rules = [:]
        for kind in PushRule.Kind.allCases {
            rules[kind] = (json[kind.rawValue]?.arrayValue ?? []).compactMap { PushRule($0, kind: kind) }
        }
    }

    /// Those that clients are shown: a kind that the specification doesn't have only where there are rules of it.
    private var kinds: [PushRule.Kind] { PushRule.Kind.allCases.filter { $0 != .postcontent || !self[$0].isEmpty } }

    /// The content of `global` as clients get it.
    public var json: JSON {
        .object(
            JSONObject(
                kinds.map { kind in
                    (kind.rawValue, .array(self[kind].map { $0.json(kind: kind) }))
                }))
    }

    /// The actions of the first rule that matches; none if no rule does or the event is the user's own.
    public func actions(for event: Event, user: UserID, in context: PushContext) -> PushActions {
        if event.sender == user { return .none }
        return matchingRule(for: event, in: context)?.actions ?? .none
    }

    /// The first rule that matches.
    public func matchingRule(for event: Event, in context: PushContext) -> PushRule? {
        for kind in PushRule.Kind.allCases {
            if let rule = self[kind].first(where: { $0.matches(event, kind: kind, in: context) }) { return rule }
        }
        return nil
    }

    public func rule(_ id: String, kind: PushRule.Kind) -> PushRule? {
        self[kind].first { $0.id.hasSameBytes(as: id) }
    }

    /// Why a rule cannot be placed where a client wants it.
    public enum PlacementError: Error, Sendable, Hashable {
        /// IDs that begin with a dot belong to the server's default rules.
        case reservedID
        /// The rule to place it next to doesn't exist, or is a default rule.
        case noSuchNeighbour
    }

    /// Adds or replaces a rule of the user's own (Client-Server API, Push Rules: API).
    ///
    /// A new rule gets the highest priority among the user's rules unless a neighbour is named; only `.m.rule.master` stays
    /// above it. A rule that is replaced without a neighbour keeps its place and whether it is enabled.
    public mutating func set(
        _ rule: PushRule, kind: PushRule.Kind, before: String? = nil, after: String? = nil
    ) throws(PlacementError) {
        guard rule.id.utf8.first != 0x2E else { throw .reservedID }
        var list = self[kind]
        var rule = rule
        let existing = list.firstIndex { $0.id.hasSameBytes(as: rule.id) }
        if let existing { rule.isEnabled = list[existing].isEnabled }
        if before == nil, after == nil {
            if let existing {
                list[existing] = rule
            } else {
                list.insert(rule, at: list.firstIndex { !$0.id.hasSameBytes(as: ".m.rule.master") } ?? list.count)
            }
            self[kind] = list
            return
        }
        if let existing { list.remove(at: existing) }
        func place(_ id: String) -> Int? { list.firstIndex { $0.id.hasSameBytes(as: id) && !$0.isDefault } }
        if let before {
            guard let index = place(before) else { throw .noSuchNeighbour }
            list.insert(rule, at: index)
        } else if let after {
            guard let index = place(after) else { throw .noSuchNeighbour }
            list.insert(rule, at: index + 1)
        }
        self[kind] = list
    }
}
