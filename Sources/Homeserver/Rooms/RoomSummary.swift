import Database
import MatrixCore

/// What a room shows of itself before one enters (Client-Server API, "Room summaries"; MSC3266).
extension DirectoryService {
    /// - Throws: `M_NOT_FOUND` for rooms that the requester may not know of.
    func summary(of room: Room, for requester: Requester?) async throws -> JSON {
        guard try await isShown(room, to: requester) else {
            throw MatrixError.notFound("There is no such room, or you may not know of it.")
        }
        var json = try await summary(of: room)
        if let requester {
            let membership = try await database.membership(of: requester.nid, in: room.nid)
            json["membership"] = .string(membership?.membership.name ?? "leave")
        }
        return .object(json)
    }

    /// What a room shows of itself, whoever asks.
    func summary(of room: Room) async throws -> JSONObject {
        let rules = try await contents(room, [.joinRules, StateKey("m.room.encryption")])
        var json = try await listing(room).json
        json["join_rule"] = .string(rules[.joinRules]?["join_rule"]?.string ?? "invite")
        json["room_version"] = .string(room.version.identifier)
        if let encryption = rules[StateKey("m.room.encryption")]?["algorithm"]?.string {
            json["encryption"] = .string(encryption)
        }
        let allowed = Self.allowedRooms(rules[.joinRules])
        if !allowed.isEmpty { json["allowed_room_ids"] = .array(allowed.map { .string($0.string) }) }
        return json
    }

    static func allowedRooms(_ rules: JSONView?) -> [RoomID] {
        guard let rules, let rule = rules["join_rule"]?.string, rule == "restricted" || rule == "knock_restricted"
        else {
            return []
        }
        return (rules["allow"]?.elements.map { $0 } ?? []).compactMap { entry in
            guard entry["type"]?.string == "m.room_membership" else { return nil }
            return entry["room_id"]?.string.flatMap { RoomID($0) }
        }
    }

    /// Whether somebody may know of a room: everybody of those that anybody may enter, knock at or look into; members and
    /// invited users of theirs; and those whom another room lets in.
    func isShown(_ room: Room, to requester: Requester?) async throws -> Bool {
        let rules = try await contents(room, [.joinRules])[.joinRules]
        let rule = rules?["join_rule"]?.string ?? "invite"
        if ["public", "knock", "knock_restricted"].contains(rule) { return true }
        if try await rooms.isWorldReadable(room) { return true }
        guard let requester else { return false }
        let membership = try await database.membership(of: requester.nid, in: room.nid)
        switch membership?.membership {
        case .join, .invite: return true
        default: break
        }
        for roomID in Self.allowedRooms(rules) {
            guard let other = try await rooms.room(roomID) else { continue }
            let membership = try await database.membership(of: requester.nid, in: other.nid)
            if membership?.membership == .join { return true }
        }
        return false
    }

    /// The contents of state events that a room has now.
    func contents(_ room: Room, _ keys: [StateKey]) async throws -> [StateKey: JSONView] {
        let numbers = try await database.existingNumbers(ofStateKeys: keys)
        return try await database.read { reader in
            let tree = StateTree(rows: self.database.stateRows, room: room.nid)
            var contents: [StateKey: JSONView] = [:]
            for (key, number) in numbers {
                guard let nid = try await tree.event(for: number, in: room.record.state, reader),
                    let stored = try await self.database.events([nid], reader).first
                else { continue }
                contents[key] = try self.rooms.context.shownContent(of: stored, room.version)
            }
            return contents
        }
    }

    /// Rooms of an answer at most.
    private static let mutualPage = 1_000

    /// The rooms that two users are both in (`GET /mutual_rooms`).
    public func mutualRooms(of requester: Requester, with user: UserID, from: String?) async throws -> JSON {
        guard user != requester.userID else {
            throw MatrixError.invalidParam("You are in all of your rooms.")
        }
        var offset = 0
        if let from {
            guard from.utf8.first == UInt8(ascii: "m"), let number = Int(from.dropFirst()), number >= 0 else {
                throw MatrixError.invalidParam("“from” is not a token that this server gave out.")
            }
            offset = number
        }
        guard let nid = try await database.existingNumber(ofUser: user) else {
            return ["joined": [], "count": 0]
        }
        let (own, theirs) = try await database.read { reader in
            (
                try await self.database.memberships(of: requester.nid, reader),
                try await self.database.memberships(of: nid, reader)
            )
        }
        let others = Set(theirs.filter { $0.membership == .join }.map(\.room))
        let shared = own.filter { $0.membership == .join && others.contains($0.room) }.map(\.room).sorted()
        var page: [JSON] = []
        for room in shared.dropFirst(offset).prefix(Self.mutualPage) {
            page.append(.string(try await rooms.room(room).roomID.string))
        }
        var answer: JSONObject = ["joined": .array(page), "count": .integer(Int64(shared.count))]
        if offset + page.count < shared.count { answer["next_batch"] = .string("m\(offset + page.count)") }
        return .object(answer)
    }
}

extension StoredMembership {
    /// As member events name it.
    var name: String {
        switch self {
        case .leave: "leave"
        case .join: "join"
        case .invite: "invite"
        case .ban: "ban"
        case .knock: "knock"
        }
    }
}
