import Database
import MatrixCore

/// Joining, inviting, leaving, removing (Client-Server API, "Room membership").
public final class MembershipService: Sendable {
    let rooms: RoomRegistry
    let succession: RoomSuccession
    var database: Database { rooms.database }
    var serverName: ServerName { rooms.context.serverName }

    init(rooms: RoomRegistry, succession: RoomSuccession) {
        self.rooms = rooms
        self.succession = succession
    }

    private func known(_ roomID: RoomID) async throws -> Room {
        guard let room = try await rooms.room(roomID) else {
            throw MatrixError.notFound("This server doesn't know the room.")
        }
        return room
    }

    /// The room that an ID or an alias of this server stands for.
    public func resolve(_ roomIDOrAlias: String) async throws -> RoomID {
        if let roomID = RoomID(roomIDOrAlias) { return roomID }
        guard let alias = RoomAlias(roomIDOrAlias) else {
            throw MatrixError.invalidParam("“\(roomIDOrAlias)” is neither a room ID nor a room alias.")
        }
        guard let (room, _) = try await database.room(ofAlias: alias) else {
            throw MatrixError.notFound("There is no room named \(alias).")
        }
        return try await rooms.room(room).roomID
    }

    /// Joins a room; being in it already is success.
    public func join(_ roomID: RoomID, reason: String?, by requester: Requester) async throws {
        let room = try await known(roomID)
        let profile = try await profile(of: requester.userID)
        let isNew = try await rooms.perform(in: room) { draft in
            if try await draft.membership(of: requester.userID) == .join { return false }
            try await GuestRules.checkMayJoin(requester, &draft)
            var content = Self.content("join", profile: profile, reason: reason)
            if let user = try await self.authoriser(of: requester.userID, in: &draft) {
                content["join_authorised_via_users_server"] = .string(user.string)
            }
            try await draft.append(
                "m.room.member", stateKey: requester.userID.string, content: content, sender: requester.userID)
            return true
        }
        if isNew { try await succession.joined(room, by: requester) }
    }

    /// Asks to be let in (Client-Server API, "Knocking on rooms"); asking again changes nothing.
    public func knock(_ roomID: RoomID, reason: String?, by requester: Requester) async throws {
        let room = try await known(roomID)
        let profile = try await profile(of: requester.userID)
        try await rooms.perform(in: room) { draft in
            if try await draft.membership(of: requester.userID) == .knock { return }
            try await draft.append(
                "m.room.member", stateKey: requester.userID.string,
                content: Self.content("knock", profile: profile, reason: reason), sender: requester.userID)
        }
    }

    /// Invites a user; inviting again one who is invited changes nothing.
    public func invite(_ user: UserID, to roomID: RoomID, reason: String?, by requester: Requester) async throws {
        let room = try await known(roomID)
        let profile = try await invitable(user)
        try await rooms.perform(in: room) { draft in
            guard try await draft.membership(of: requester.userID) == .join else { throw Self.notInRoom }
            if try await draft.membership(of: user) == .invite { return }
            try await draft.append(
                "m.room.member", stateKey: user.string,
                content: Self.content("invite", profile: profile, reason: reason), sender: requester.userID)
        }
    }

    /// The profile of a user who may be invited.
    func invitable(_ user: UserID) async throws -> Profile {
        guard user.server == serverName else {
            throw MatrixError.forbidden("\(user) is on another server, and this server doesn't speak to others yet.")
        }
        guard let account = try await database.account(of: user), !account.isDeactivated else {
            throw MatrixError.notFound("There is no user \(user).")
        }
        try await InvitePermission(database: database).check(user)
        return Profile(displayName: account.displayName, avatarURL: account.avatarURL)
    }

    static let notInRoom = MatrixError.forbidden("You are not in this room.")

    /// Leaves a room, or turns an invitation or a knock down; having left already is success.
    public func leave(_ roomID: RoomID, reason: String?, by requester: Requester) async throws {
        let room = try await known(roomID)
        try await rooms.perform(in: room) { draft in
            guard let current = try await draft.state(.member(requester.userID)) else { throw Self.notInRoom }
            if Membership(current.content["membership"]) == .leave { return }
            try await draft.append(
                "m.room.member", stateKey: requester.userID.string,
                content: Self.content("leave", profile: nil, reason: reason), sender: requester.userID)
        }
    }

    /// What one member does to another.
    public enum Removal: Sendable {
        case kick, ban, unban
    }

    public func remove(
        _ user: UserID, from roomID: RoomID, _ removal: Removal, reason: String?, by requester: Requester
    ) async throws {
        let room = try await known(roomID)
        try await rooms.perform(in: room) { draft in
            guard try await draft.membership(of: requester.userID) == .join else { throw Self.notInRoom }
            let current = try await draft.membership(of: user)
            switch removal {
            case .kick where current == .leave || current == .ban:
                throw MatrixError.forbidden("\(user) is not in the room.")
            case .unban where current != .ban: throw MatrixError.forbidden("\(user) is not banned.")
            case .ban where current == .ban: return
            default: break
            }
            try await draft.append(
                "m.room.member", stateKey: user.string,
                content: Self.content(removal == .ban ? "ban" : "leave", profile: nil, reason: reason),
                sender: requester.userID)
        }
    }

    /// Forgets a room that was left (`POST /rooms/{roomId}/forget`).
    public func forget(_ roomID: RoomID, by requester: Requester) async throws {
        let room = try await known(roomID)
        var write = Write()
        write.forget(room.nid, for: requester.nid)
        do { try await database.write(write) } catch DatabaseError.conflict {
            throw MatrixError(.unknown, "Leave the room before you forget it.", status: 400)
        }
    }

    // MARK: - Content

    /// A user's public name and picture.
    struct Profile: Sendable {
        var displayName: String?
        var avatarURL: String?
    }

    func profile(of user: UserID) async throws -> Profile {
        let account = try await database.account(of: user)
        return Profile(displayName: account?.displayName, avatarURL: account?.avatarURL)
    }

    static func content(_ membership: String, profile: Profile?, reason: String?, isDirect: Bool = false) -> JSON {
        var content: JSONObject = ["membership": .string(membership)]
        if let name = profile?.displayName { content["displayname"] = .string(name) }
        if let avatar = profile?.avatarURL { content["avatar_url"] = .string(avatar) }
        if let reason { content["reason"] = .string(reason) }
        if isDirect { content["is_direct"] = true }
        return .object(content)
    }
}
