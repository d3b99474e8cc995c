/// What has to hold for a push rule to match (Client-Server API, Push Rules, Conditions).
public struct PushCondition: Sendable {
    enum Kind: Sendable {
        case eventMatch(PropertyPath, Glob, Glob.Extent)
        case eventPropertyIs(PropertyPath, JSON)
        case eventPropertyContains(PropertyPath, JSON)
        case containsDisplayName
        case roomMemberCount(Comparison, Int64)
        case senderNotificationPermission(String)
        /// MSC4306, `thread_subscription`.
        case threadSubscription(Bool)
        /// A condition that is not known or malformed: it never holds.
        case unrecognised
    }

    enum Comparison: Sendable {
        case equal, less, greater, lessOrEqual, greaterOrEqual
    }

    let kind: Kind

    /// About what it takes in memory, besides its JSON.
    var compiledBytes: Int {
        if case .eventMatch(_, let glob, _) = kind { return 256 + glob.compiledBytes }
        return 256
    }

    /// The condition as the client wrote it.
    public let json: JSON

    public init(_ json: JSON) {
        self.json = json
        kind = Self.parse(json)
    }

    private static func parse(_ json: JSON) -> Kind {
        let key = json["key"]?.stringValue
        guard let name = json["kind"]?.stringValue else { return .unrecognised }
        if name.hasSameBytes(as: "event_match"), let key, let pattern = json["pattern"]?.stringValue {
            let path = PropertyPath(key)
            return .eventMatch(path, Glob(pattern), path.isContentBody ? .words : .whole)
        }
        if name.hasSameBytes(as: "event_property_is"), let key, let value = json["value"], isScalar(value) {
            return .eventPropertyIs(PropertyPath(key), value)
        }
        if name.hasSameBytes(as: "event_property_contains"), let key, let value = json["value"], isScalar(value) {
            return .eventPropertyContains(PropertyPath(key), value)
        }
        if name.hasSameBytes(as: "contains_display_name") { return .containsDisplayName }
        if name.hasSameBytes(as: "room_member_count"), let text = json["is"]?.stringValue,
            let (comparison, count) = memberCount(text)
        {
            return .roomMemberCount(comparison, count)
        }
        if name.hasSameBytes(as: "sender_notification_permission"), let key {
            return .senderNotificationPermission(key)
        }
        if name.hasSameBytes(as: threadSubscription), let subscribed = json["subscribed"]?.boolValue {
            return .threadSubscription(subscribed)
        }
        return .unrecognised
    }

    /// The name of the condition, as long as MSC4306 is a proposal.
    static let threadSubscription = "io.element.msc4306.thread_subscription"

    /// Strings, integers within the canonical range, booleans and null.
    private static func isScalar(_ value: JSON) -> Bool {
        switch value {
        case .null, .bool, .string: true
        case .integer: value.integerValue != nil
        default: false
        }
    }

    private static func memberCount(_ text: String) -> (Comparison, Int64)? {
        let prefixes: [(String, Comparison)] = [
            ("==", .equal), ("<=", .lessOrEqual), (">=", .greaterOrEqual), ("<", .less), (">", .greater), ("", .equal),
        ]
        guard let (prefix, comparison) = prefixes.first(where: { text.utf8.starts(with: $0.0.utf8) }) else {
            return nil
        }
        let digits = text.utf8.dropFirst(prefix.utf8.count)
        guard !digits.isEmpty, digits.allSatisfy({ $0 &- 0x30 < 10 }), let count = Int64(Substring(digits)) else {
            return nil
        }
        return (comparison, count)
    }

    func holds(for event: Event, in context: PushContext) -> Bool {
        switch kind {
        case .eventMatch(let path, let glob, let extent):
            guard let text = Self.string(path, of: event) else { return false }
            return glob.matches(text, extent)
        case .eventPropertyIs(let path, let value):
            return path.value(in: event.root).map { Self.isEqual($0, value) } ?? false
        case .eventPropertyContains(let path, let value):
            guard let list = path.value(in: event.root) else { return false }
            return list.elements.contains { Self.isEqual($0, value) }
        case .containsDisplayName:
            guard let name = context.displayName, !name.isEmpty, let body = event.content["body"]?.string else {
                return false
            }
            return Glob(literal: name).matches(body, .words)
        case .roomMemberCount(let comparison, let count):
            let members = Int64(context.memberCount)
            return switch comparison {
            case .equal: members == count
            case .less: members < count
            case .greater: members > count
            case .lessOrEqual: members <= count
            case .greaterOrEqual: members >= count
            }
        case .senderNotificationPermission(let key):
            return context.powerLevels.level(of: event.sender) >= .finite(context.powerLevels.notification(key))
        case .threadSubscription(let subscribed):
            return context.isSubscribedToThread == subscribed
        case .unrecognised:
            return false
        }
    }

    /// The string at a path. Clients know two properties of an event that its bytes don't always have.
    private static func string(_ path: PropertyPath, of event: Event) -> String? {
        if path.components == ["room_id"] { return event.roomID.string }
        if path.components == ["event_id"] { return event.eventID.string }
        return path.value(in: event.root)?.string
    }

    private static func isEqual(_ view: JSONView, _ value: JSON) -> Bool {
        switch value {
        case .null: view.isNull
        case .bool(let bool): view.bool == bool
        case .integer(let integer): view.integer == integer
        case .string(let string): view.isString(string)
        default: false
        }
    }
}

/// What push rules ask about besides the event.
public struct PushContext: Sendable {
    /// How many members the room has.
    public var memberCount: Int
    /// The display name of the rules' owner in the room.
    public var displayName: String?
    public var powerLevels: PowerLevels
    /// Whether the rules' owner follows the thread that the event is part of; nil if it is part of none, or if nobody follows threads
    /// here (MSC4306).
    public var isSubscribedToThread: Bool?

    public init(
        memberCount: Int, displayName: String?, powerLevels: PowerLevels, isSubscribedToThread: Bool? = nil
    ) {
        self.memberCount = memberCount
        self.displayName = displayName
        self.powerLevels = powerLevels
        self.isSubscribedToThread = isSubscribedToThread
    }
}
