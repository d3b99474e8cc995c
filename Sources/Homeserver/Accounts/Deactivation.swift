import Database
import MatrixCore

/// Ends accounts for good (Client-Server API, "Deactivating an account"): no session, no password, in no room.
public final class DeactivationService: Sendable {
    let accounts: AccountService
    let memberships: MembershipService
    private var database: Database { accounts.database }

    init(accounts: AccountService, memberships: MembershipService) {
        self.accounts = accounts
        self.memberships = memberships
    }

    /// Deactivates an account. Nobody can act as it from the moment this begins; begun again after a crash it goes on with
    /// the rooms that are left.
    ///
    /// - Parameter erases: whether those who were not in the room with the user then see what the user said no more, and the
    ///   profile is removed.
    public func deactivate(_ name: String, erases: Bool = false) async throws -> UserID {
        let account = try await accounts.account(named: name)
        var write = Write()
        if !account.isDeactivated { write.deactivate(account.nid, at: accounts.surroundings.now()) }
        write.putUserWords([], of: account.nid)
        if erases {
            write.changeStanding(of: account.nid, adding: .erased)
            write.setDisplayName(nil, of: account.nid)
            write.setAvatarURL(nil, of: account.nid)
            write.deleteProfileFields(of: account.nid)
            write.topics.append(.everything)
        }
        write.deleteAllDevices(of: account.nid)
        write.deleteKeysOfAccount(of: account.nid)
        try await database.announceDevices(of: account.nid, in: &write)
        try await database.write(write)
        try await accounts.tokens.sessionsEnded()
        let rooms = try await database.read { try await self.database.memberships(of: account.nid, $0) }
        let requester = Requester(nid: account.nid, userID: account.userID, deviceID: "")
        for membership in rooms where [.join, .invite, .knock].contains(membership.membership) {
            let room = try await memberships.rooms.room(membership.room)
            try await memberships.leave(room.roomID, reason: nil, by: requester)
        }
        return account.userID
    }
}
