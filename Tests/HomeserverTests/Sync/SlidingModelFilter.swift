import MatrixCore
import RoostTestSupport

@testable import Homeserver

/// A filter of a list, as a client writes it, and what it means (MSC4186, `SlidingRoomFilter`).
enum SlidingModelFilter {
    case direct(Bool), encrypted(Bool), invited(Bool)
    case types([String?]), notTypes([String?])
    case tags([String]), notTags([String])
    case space(RoomID)

    static func random(_ rooms: [RoomID], _ generator: inout SeededGenerator) -> SlidingModelFilter {
        let types = [[nil], ["m.space"], ["m.space", nil]].randomElement(using: &generator)!
        let tags = [["u.0"], ["u.1", "u.2"]].randomElement(using: &generator)!
        let flag = Bool.random(using: &generator)
        return [
            .direct(flag), .encrypted(flag), .invited(flag), .types(types), .notTypes(types), .tags(tags),
            .notTags(tags), .space(rooms.randomElement(using: &generator)!),
        ].randomElement(using: &generator)!
    }

    var json: JSON {
        func list(_ names: [String?]) -> JSON { .array(names.map { $0.map { .string($0) } ?? .null }) }
        return switch self {
        case .direct(let flag): ["is_dm": .bool(flag)]
        case .encrypted(let flag): ["is_encrypted": .bool(flag)]
        case .invited(let flag): ["is_invited": .bool(flag)]
        case .types(let types): ["room_types": list(types)]
        case .notTypes(let types): ["not_room_types": list(types)]
        case .tags(let tags): ["tags": list(tags)]
        case .notTags(let tags): ["not_tags": list(tags)]
        case .space(let room): ["spaces": [.string(room.string)]]
        }
    }
}

extension SyncWorld {
    func admits(_ filter: SlidingModelFilter, _ room: RoomID, for index: Int) async throws -> Bool {
        let user = users[index].userID
        let log = try await log(room)
        let state = Self.state(after: log)
        let membership = Self.membership(user, state)
        let type = state[.create]?.content["type"]?.string
        let tags = Set(accountData[index]?[room.string]?["m.tag"]?["tags"]?.objectValue?.map(\.key) ?? [])
        switch filter {
        case .direct(let flag): return direct[index]?.contains(room.string) ?? false == flag
        case .invited(let flag): return (membership == "invite") == flag
        case .types(let types): return types.contains(type)
        case .notTypes(let types): return !types.contains(type)
        case .tags(let wanted): return !tags.isDisjoint(with: wanted)
        case .notTags(let unwanted): return tags.isDisjoint(with: unwanted)
        case .encrypted(let flag):
            // To who isn't in the room it is as it was at the invitation or the end.
            let seen = membership == "join" ? state : log.last { $0.event.stateMapKey == .member(user) }?.before
            return (seen?[.encryption] != nil) == flag
        case .space(let space):
            let children = Self.state(after: try await self.log(space))
            return Self.membership(user, children) == "join"
                && children[StateKey("m.space.child", room.string)]?.content["via"]?.isArray == true
        }
    }
}
