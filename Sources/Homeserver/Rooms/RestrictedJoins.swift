import Database
import MatrixCore

/// Joining rooms that let in the members of other rooms (Client-Server API, "Restricted rooms"; room version 8).
extension MembershipService {
    /// The user by whose right somebody may join a restricted room; nil where nobody's is needed: the room is not restricted, or the user
    /// is invited.
    ///
    /// - Throws: `M_FORBIDDEN` if the user is in none of the rooms that open the door, `M_UNABLE_TO_AUTHORISE_JOIN` if this server
    ///   can't tell, `M_UNABLE_TO_GRANT_JOIN` if nobody here may let the user in.
    func authoriser(of user: UserID, in draft: inout RoomDraft) async throws -> UserID? {
        guard draft.version.rules.authorization.restrictedJoins,
            let rules = try await draft.state(.joinRules)?.content,
            let rule = rules["join_rule"]?.string, rule == "restricted" || rule == "knock_restricted"
        else { return nil }
        switch try await draft.membership(of: user) {
        case .invite, .join: return nil
        case .ban: throw MatrixError.forbidden("You are banned from this room.")
        case .leave, .knock: break
        }
        try await checkAllowed(user, rules)
        guard let user = try await inviter(in: &draft) else {
            throw MatrixError(.unableToGrantJoin, "Nobody on this server may let you in.")
        }
        return user
    }

    private func checkAllowed(_ user: UserID, _ rules: JSONView) async throws {
        var isKnown = true
        for allowed in rules["allow"]?.elements.map({ $0 }) ?? [] where allowed["type"]?.string == "m.room_membership" {
            guard let roomID = allowed["room_id"]?.string.flatMap({ RoomID($0) }) else { continue }
            guard let room = try await rooms.room(roomID) else {
                isKnown = false
                continue
            }
            let nid = try await database.number(ofUser: user)
            let membership = try await database.membership(of: nid, in: room.nid)
            if membership?.membership == .join { return }
        }
        guard isKnown else {
            throw MatrixError(
                .unableToAuthoriseJoin, "This server can't tell whether you are in a room that opens this one.")
        }
        throw MatrixError.forbidden("This room is for members of certain other rooms, and you are in none of them.")
    }

    /// Members of this server that are looked at for one who may invite.
    private static let mostCandidates = 1_000

    /// A joined user of this server who may invite.
    private func inviter(in draft: inout RoomDraft) async throws -> UserID? {
        let levels = try await draft.powerLevels()
        // Those with a level of their own first; then anybody, for rooms in which all may invite.
        var candidates =
            try await draft.state(.powerLevels)?.content["users"]?.members.compactMap { UserID($0.key) } ?? []
        if let creator = try await draft.state(.create)?.sender { candidates.append(creator) }
        let room = draft.record.nid
        let local = try await database.read { reader in
            try await self.database.localUsers(in: room, .join, reader)
        }
        candidates += try await database.users(Array(local.prefix(Self.mostCandidates))).values.sorted()
        for user in candidates where user.server == serverName && levels.level(of: user) >= .finite(levels.invite) {
            if try await draft.membership(of: user) == .join { return user }
        }
        return nil
    }
}
