import Testing

@testable import MatrixCore

/// A room with people in it, and the question which rule refuses an event.
///
/// `@creator:hs` made the room, `@mod:hs` has power level 50, `@user:hs` and `@far:away` have none; all are joined.
struct Scene {
    static let creator = "@creator:hs"
    static let mod = "@mod:hs"
    static let user = "@user:hs"
    static let far = "@far:away"
    static let stranger = "@stranger:hs"

    var room: RoomBuilder
    var rules: AuthorizationRules { room.version.rules.authorization }

    init(
        _ version: RoomVersion, powerLevels: JSON? = [:], joinRule: JSON? = "public", create: JSON = [:]
    ) throws {
        var levels = powerLevels
        if levels != nil, levels?["users"] == nil {
            levels?["users"] = [Self.mod: 50]
            // From version 12 on power levels may not name the creator.
            if !version.rules.authorization.creatorsHaveInfinitePower { levels?["users"]?[Self.creator] = 100 }
        }
        room = try RoomBuilder.room(
            version, creator: Self.creator, powerLevels: levels, joinRule: "public", create: create)
        for member in [Self.mod, Self.user, Self.far] { try room.addMember(member, "join") }
        if let joinRule, joinRule != "public" {
            try room.add("m.room.join_rules", sender: Self.creator, stateKey: "", content: ["join_rule": joinRule])
        }
    }

    mutating func event(
        _ type: String, by sender: String, stateKey: String? = nil, _ content: JSON = [:], redacts: EventID? = nil
    ) throws -> Event {
        try room.make(type, sender: sender, stateKey: stateKey, content: content, redacts: redacts)
    }

    mutating func member(_ target: String, _ membership: String, by sender: String? = nil, _ more: JSON = [:]) throws
        -> Event
    {
        var content: JSON = ["membership": .string(membership)]
        for (key, value) in more.objectValue ?? [:] { content[key] = value }
        return try event("m.room.member", by: sender ?? target, stateKey: target, content)
    }

    /// The rule that refuses `event`, nil if it is allowed.
    func refusal(_ event: Event) -> AuthorizationError.Rule? {
        do {
            try room.check(event)
            return nil
        } catch {
            #expect(!error.description.isEmpty)
            return error.rule
        }
    }
}

extension RoomVersion {
    /// The versions from `first` to `last`.
    static func from(_ first: Int, to last: Int = 12) -> [RoomVersion] { Array(all[first - 1...last - 1]) }

    /// 1 for version 1, and so on.
    var number: Int { (Self.all.firstIndex(of: self) ?? 0) + 1 }
}
