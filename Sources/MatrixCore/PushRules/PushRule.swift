/// One push rule of a user (Client-Server API, Push Rules).
public struct PushRule: Sendable {
    public enum Kind: String, Sendable, Hashable, CaseIterable {
        case override
        case content
        /// Of the server alone (MSC4306, "New Push Rules").
        case postcontent
        case room
        case sender
        case underride

        /// Whether rules of the kind match by conditions.
        public var hasConditions: Bool { self == .override || self == .postcontent || self == .underride }
    }

    public let id: String
    public var isDefault: Bool
    public var isEnabled: Bool
    public var actions: PushActions
    /// Of rules whose kind ``Kind/hasConditions``.
    public var conditions: [PushCondition]
    /// Of `content` rules.
    public let pattern: String?
    private let glob: Glob?

    public init(
        id: String, isDefault: Bool = false, isEnabled: Bool = true, actions: PushActions,
        conditions: [PushCondition] = [], pattern: String? = nil
    ) {
        self.id = id
        self.isDefault = isDefault
        self.isEnabled = isEnabled
        self.actions = actions
        self.conditions = conditions
        self.pattern = pattern
        glob = pattern.map { Glob($0) }
    }

    /// About what it takes in memory: values of JSON take more than their text does.
    public var compiledBytes: Int {
        let compiled = conditions.reduce(256 + (glob?.compiledBytes ?? 0)) { $0 + $1.compiledBytes }
        let text = id.utf8.count + (pattern?.utf8.count ?? 0)
        return compiled + 16 * (text + JSON.array(actions.json + conditions.map(\.json)).encoded().count)
    }

    /// Reads a rule as clients exchange it; nil if it lacks what its kind needs.
    public init?(_ json: JSON, kind: Kind) {
        guard let id = json["rule_id"]?.stringValue, let actions = json["actions"]?.arrayValue else { return nil }
        let pattern = json["pattern"]?.stringValue
        if kind == .content, pattern == nil { return nil }
        self.init(
            id: id, isDefault: json["default"]?.boolValue ?? false, isEnabled: json["enabled"]?.boolValue ?? true,
            actions: PushActions(actions),
            conditions: kind.hasConditions ? (json["conditions"]?.arrayValue ?? []).map(PushCondition.init) : [],
            pattern: kind == .content ? pattern : nil)
    }

    /// The rule as clients get it.
    public func json(kind: Kind) -> JSON {
        var json: JSON = [
            "rule_id": .string(id), "default": .bool(isDefault), "enabled": .bool(isEnabled),
            "actions": .array(actions.json),
        ]
        if kind.hasConditions { json["conditions"] = .array(conditions.map(\.json)) }
        if let pattern { json["pattern"] = .string(pattern) }
        return json
    }

    func matches(_ event: Event, kind: Kind, in context: PushContext) -> Bool {
        guard isEnabled else { return false }
        switch kind {
        case .override, .postcontent, .underride:
            return conditions.allSatisfy { $0.holds(for: event, in: context) }
        case .content:
            guard let glob, let body = event.content["body"]?.string else { return false }
            return glob.matches(body, .words)
        case .room:
            return id.hasSameBytes(as: event.roomID.string)
        case .sender:
            return id.hasSameBytes(as: event.sender.string)
        }
    }
}

/// What happens when a rule matches (Client-Server API, Push Rules, Actions).
public struct PushActions: Sendable, Hashable {
    /// As clients exchange them, without the historical `dont_notify` and `coalesce`.
    public let json: [JSON]

    public init(_ json: [JSON]) {
        self.json = json.filter { $0 != "dont_notify" && $0 != "coalesce" }
    }

    public static let none = PushActions([])

    /// Whether the event is a notification at all.
    public var notify: Bool { json.contains("notify") }

    /// The value of a tweak, nil if it isn't set; the last one counts. `highlight` without a value is true.
    public func tweak(_ name: String) -> JSON? {
        guard let action = json.last(where: { $0["set_tweak"]?.stringValue?.hasSameBytes(as: name) == true }) else {
            return nil
        }
        return action["value"] ?? (name.hasSameBytes(as: "highlight") ? true : .null)
    }

    public var highlight: Bool { notify && tweak("highlight") == true }

    /// All tweaks, for the notification to a push gateway (Push Gateway API).
    public var tweaks: JSONObject {
        var tweaks = JSONObject()
        for action in json {
            if let name = action["set_tweak"]?.stringValue { tweaks[name] = tweak(name) }
        }
        return tweaks
    }
}
