import Database
import MatrixCore

/// Locking and suspending accounts (Client-Server API, "Account moderation"), and seeing who is where (module "Server
/// Administration").
extension AccountService {
    /// The account that an administrator wants to look at or change. The administrator has been recognised before: nobody else
    /// learns whether there is one.
    ///
    /// - Throws: `M_INVALID_PARAM` for users of other servers, `M_NOT_FOUND`, `M_FORBIDDEN` for administrators.
    private func moderated(_ user: UserID) async throws -> Account {
        guard user.server == serverName else { throw MatrixError.invalidParam("\(user) is not a user of this server.") }
        guard let account = try await database.account(of: user), !account.isDeactivated else {
            throw MatrixError.notFound("There is no user \(user).")
        }
        guard !account.isAdmin else { throw MatrixError.forbidden("\(user) is an administrator.") }
        return account
    }

    /// Whether an account is locked or suspended.
    public func standing(of user: UserID) async throws -> AccountStanding { try await moderated(user).standing }

    /// Locks or suspends an account, or takes that back. Sessions stay, and end or go on with the lock.
    public func set(_ standing: AccountStanding, _ holds: Bool, of user: UserID, by requester: Requester) async throws {
        guard user != requester.userID else { throw MatrixError.forbidden("This can't be done to your own account.") }
        let account = try await moderated(user)
        var write = Write()
        write.changeStanding(of: account.nid, adding: holds ? standing : [], removing: holds ? [] : standing)
        write.topics.append(.user(account.nid))
        do { try await database.write(write) } catch DatabaseError.conflict {
            throw MatrixError.notFound("There is no user \(user).")
        }
        try await tokens.sessionsEnded()
    }

    /// The devices of a user, with when and from where they were seen last (`GET /admin/whois/{userId}`).
    ///
    /// - Throws: `M_FORBIDDEN` to all but the user and administrators.
    public func whois(_ user: UserID, by requester: Requester) async throws -> [Device] {
        guard requester.isAdmin || requester.userID == user else {
            throw MatrixError.forbidden("Only administrators may look at others.")
        }
        guard let account = try await database.account(of: user) else {
            throw MatrixError.notFound("There is no user \(user).")
        }
        return try await database.devices(of: account.nid)
    }
}
