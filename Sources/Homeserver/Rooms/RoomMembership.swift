import Database
import MatrixCore

/// Joining, inviting, leaving, removing (Client-Server API, "Room membership").
public final class MembershipService: Sendable {
    let rooms: RoomRegistry
    let succession: RoomSuccession
    let remote: RemoteMemberships
    var database: Database { rooms.database }
    var serverName: ServerName { rooms.context.serverName }

    init(rooms: RoomRegistry, succession: RoomSuccession, remote: RemoteMemberships) {
        self.remote = remote
        self.rooms = rooms
        self.succession = succession
    }

    private func known(_ roomID: RoomID) async throws -> Room {
        guard let room = try await rooms.room(roomID) else {
            throw MatrixError.notFound("This server doesn't know the room.")
        }
        return room
    }

    /// The room if this server is in it, or nobody else is either: then what happens in it is decided here.
    private func home(_ roomID: RoomID) async throws -> Room? {
        guard let room = try await rooms.room(roomID), !room.record.extremities.isEmpty else { return nil }
        if try await remote.federated.isResident(room) { return room }
        return try await remote.federated.servers(in: room).isEmpty ? room : nil
    }

    /// Joins a room; being in it already is success.
    ///
    /// - Parameter servers: by which the room can be reached, where this one isn't in it.
    public func join(
        _ roomID: RoomID, reason: String?, via servers: [ServerName] = [], by requester: Requester
    ) async throws {
        let profile = try await profile(of: requester.userID)
        guard let room = try await home(roomID) else {
            return try await joinElsewhere(roomID, profile, reason, servers, requester)
        }
        // Whether this user may join, only a server knows that knows all members.
        if room.record.partialJoin != nil, try await !isJoined(requester, room) {
            return try await joinElsewhere(roomID, profile, reason, servers, requester)
        }
        do {
            try await join(room, profile, reason, requester)
        } catch let error as MatrixError where Self.needsOthers.contains(error.code) {
            // Somebody on another server may let the user in.
            guard try await !remote.federated.servers(in: room).isEmpty else { throw error }
            try await joinElsewhere(roomID, profile, reason, servers, requester)
        }
    }

    private func isJoined(_ requester: Requester, _ room: Room) async throws -> Bool {
        try await database.membership(of: requester.nid, in: room.nid)?.membership
            == .join
    }

    /// What another server may know better.
    private static let needsOthers: Set<MatrixError.Code> = [.unableToAuthoriseJoin, .unableToGrantJoin]

    private func joinElsewhere(
        _ roomID: RoomID, _ profile: Profile, _ reason: String?, _ servers: [ServerName], _ requester: Requester
    ) async throws {
        guard !requester.isGuest else { throw MatrixError.guestsForbidden }
        let room = try await remote.join(
            roomID, by: requester.userID, requester.nid,
            content: Self.content("join", profile: profile, reason: reason), via: servers)
        try await succession.joined(room, by: requester)
    }

    private func join(_ room: Room, _ profile: Profile, _ reason: String?, _ requester: Requester) async throws {
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
    public func knock(
        _ roomID: RoomID, reason: String?, via servers: [ServerName] = [], by requester: Requester
    ) async throws {
        let profile = try await profile(of: requester.userID)
        guard let room = try await home(roomID) else {
            return try await remote.knock(
                roomID, by: requester.userID, requester.nid,
                content: Self.content("knock", profile: profile, reason: reason), via: servers)
        }
        try await remote.partialRooms.whole(room)
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
        try await remote.partialRooms.whole(room)
        let profile = try await invitable(user)
        if user.server != serverName {
            guard
                try await rooms.perform(
                    in: room,
                    { draft in
                        guard try await draft.membership(of: requester.userID) == .join else { throw Self.notInRoom }
                        return try await draft.membership(of: user) != .invite
                    })
            else { return }
            return try await remote.invite(
                user, to: room, content: Self.content("invite", profile: profile, reason: reason),
                by: requester.userID)
        }
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
        // What a user of another server is called, that server says.
        guard user.server == serverName else { return Profile() }
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
        guard try await home(roomID) != nil else { return try await leaveElsewhere(room, reason, requester) }
        if try await !isJoined(requester, room) { try await remote.partialRooms.whole(room) }
        try await rooms.perform(in: room) { draft in
            guard let current = try await draft.state(.member(requester.userID)) else { throw Self.notInRoom }
            if Membership(current.content["membership"]) == .leave { return }
            try await draft.append(
                "m.room.member", stateKey: requester.userID.string,
                content: Self.content("leave", profile: nil, reason: reason), sender: requester.userID)
        }
    }

    private func leaveElsewhere(_ room: Room, _ reason: String?, _ requester: Requester) async throws {
        let membership = try await database.membership(of: requester.nid, in: room.nid)
        switch membership?.membership {
        case .invite, .knock:
            try await remote.leave(
                room, by: requester.userID, requester.nid,
                content: Self.content("leave", profile: nil, reason: reason))
        case .leave: return
        case .join, .ban, nil: throw Self.notInRoom
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
        try await remote.partialRooms.whole(room)
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
