/// How much a user may do in a room. Creators of rooms of version 12 stand above every number.
public enum PowerLevel: Sendable, Hashable, Comparable, CustomStringConvertible {
    case finite(Int64)
    case infinite

    public var description: String {
        switch self {
        case .finite(let value): String(value)
        case .infinite: "infinite"
        }
    }
}

/// The levels that a room's `m.room.power_levels` event sets, with the defaults for what it does not set
/// (Client-Server API, `m.room.power_levels`; Server-Server API, Definitions).
///
/// A value that the room version cannot read counts as not set. Only rooms of versions 1 to 9 can have such values.
public struct PowerLevels: Sendable {
    private let content: JSONView?
    private let creators: [UserID]
    private let rules: AuthorizationRules

    /// - Parameters:
    ///   - event: The room's power levels, nil if it has none.
    ///   - create: The room's create event.
    public init(event: Event?, create: Event) {
        content = event?.content
        creators = create.roomCreators
        rules = create.version.rules.authorization
    }

    /// The level of a user: infinite for the creators in room version 12.
    public func level(of user: UserID) -> PowerLevel {
        if rules.creatorsHaveInfinitePower, creators.contains(user) { return .infinite }
        guard let content else {
            return .finite(creators.contains(user) ? 100 : 0)
        }
        if let level = read(content["users"]?[user.string]) { return .finite(level) }
        return .finite(usersDefault)
    }

    public var usersDefault: Int64 { named("users_default", or: 0) }
    public var eventsDefault: Int64 { named("events_default", or: 0) }
    public var stateDefault: Int64 { named("state_default", or: 50) }
    public var invite: Int64 { named("invite", or: 0) }
    public var kick: Int64 { named("kick", or: 50) }
    public var ban: Int64 { named("ban", or: 50) }
    public var redact: Int64 { named("redact", or: 50) }

    /// The level for sending events of a type: the *required power level*.
    public func required(type: String, isState: Bool) -> Int64 {
        read(content?["events"]?[type]) ?? (isState ? stateDefault : eventsDefault)
    }

    /// The level for notifying the whole room (`notifications.room`).
    public var roomNotification: Int64 { notification("room") }

    /// The level for a kind of notification.
    public func notification(_ key: String) -> Int64 { read(content?["notifications"]?[key]) ?? 50 }

    /// Whether `user` may send events of this type, judged by the power levels alone.
    public func allows(_ user: UserID, toSend type: String, isState: Bool) -> Bool {
        level(of: user) >= .finite(required(type: type, isState: isState))
    }

    private func named(_ key: String, or fallback: Int64) -> Int64 { read(content?[key]) ?? fallback }

    private func read(_ value: JSONView?) -> Int64? {
        value.flatMap { Self.read($0, as: rules.powerLevelValues) }
    }

    /// The value of one level, nil if the room version does not accept it.
    static func read(_ value: JSONView, as values: AuthorizationRules.PowerLevelValues) -> Int64? {
        switch value.kind {
        case .integer:
            if let integer = value.int64 { return integer }
            // Beyond 64 bits, which only versions 1 to 5 let in: ordered above or below all others.
            guard values == .integersStringsAndFloats else { return nil }
            return value.raw.first == 0x2D ? .min : .max
        case .double:
            guard values == .integersStringsAndFloats, let double = value.double else { return nil }
            return Int64(exactly: double.rounded(.towardZero)) ?? (double < 0 ? .min : .max)
        case .string:
            guard values != .integers, let string = value.string else { return nil }
            return integer(in: string)
        default:
            return nil
        }
    }

    /// Room Version 1, `m.room.power_levels` events accept values as strings: one decimal integer, with an optional sign,
    /// leading zeros, and white space around it.
    private static func integer(in string: String) -> Int64? {
        var text = Substring(string).utf8
        func isSpace(_ byte: UInt8) -> Bool { byte == 0x20 || (0x09...0x0D).contains(byte) }
        while let first = text.first, isSpace(first) { text.removeFirst() }
        while let last = text.last, isSpace(last) { text.removeLast() }
        let isNegative = text.first == 0x2D
        if isNegative || text.first == 0x2B { text.removeFirst() }
        guard !text.isEmpty, text.allSatisfy({ $0 &- 0x30 < 10 }) else { return nil }
        var value: Int64 = 0
        for digit in text {
            let (tenfold, overflow) = value.multipliedReportingOverflow(by: 10)
            let (next, overflow2) = tenfold.subtractingReportingOverflow(Int64(digit - 0x30))
            // Saturate, as for numbers of this size that are not strings.
            guard !overflow, !overflow2 else { return isNegative ? .min : .max }
            value = next
        }
        if isNegative { return value }
        return value == .min ? .max : -value
    }
}

extension Event {
    /// The creators of the room that this create event begins: `content.creator` up to version 10, the sender from 11
    /// on, in version 12 `additional_creators` as well.
    public var roomCreators: [UserID] {
        let rules = version.rules.authorization
        switch rules.creator {
        case .content:
            return content["creator"]?.string.map { [UserID(unchecked: $0)] } ?? []
        case .sender:
            guard rules.creatorsHaveInfinitePower else { return [sender] }
            let additional = content["additional_creators"]?.elements.compactMap(\.string) ?? []
            return [sender] + additional.map(UserID.init(unchecked:))
        }
    }
}
