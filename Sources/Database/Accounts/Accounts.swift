import MatrixCore

/// An account on this server.
public struct Account: Sendable {
    public let nid: UserNID
    public let userID: UserID
    /// The encoded hash of the password; nil if there is none to log in with.
    public let passwordHash: String?
    public let createdTS: Int64
    public let isAdmin: Bool
    public let deactivatedTS: Int64?
    public let displayName: String?
    public let avatarURL: String?

    public var isDeactivated: Bool { deactivatedTS != nil }
}

extension Database {
    private static let columns = """
        a.user_nid, u.user_id, a.password_hash, a.created_ts, a.admin, a.deactivated_ts, a.display_name, a.avatar_url
        """
    private static let byNumber = Statement(
        "SELECT \(columns) FROM accounts a JOIN users u ON u.user_nid = a.user_nid WHERE a.user_nid = $1")
    private static let all = Statement(
        "SELECT \(columns) FROM accounts a JOIN users u ON u.user_nid = a.user_nid ORDER BY u.user_id")

    private static func account(_ row: any Row) -> Account {
        Account(
            nid: UserNID(row.integer(0)), userID: UserID(unchecked: row.text(1)), passwordHash: row.optionalText(2),
            createdTS: row.integer(3), isAdmin: row.flag(4), deactivatedTS: row.optionalInteger(5),
            displayName: row.optionalText(6), avatarURL: row.optionalText(7))
    }

    public func account(_ nid: UserNID) async throws -> Account? {
        try await read { try await $0.first(Self.byNumber, [nid.value], Self.account) }
    }

    public func account(of user: UserID) async throws -> Account? {
        guard let nid = try await existingNumbers(ofUsers: [user])[user] else { return nil }
        return try await account(nid)
    }

    /// All accounts, in the order of their user IDs.
    public func accounts() async throws -> [Account] {
        try await read { try await $0.query(Self.all, [], Self.account) }
    }
}

extension Write {
    private static let insertAccount = Statement(
        "INSERT INTO accounts (user_nid, password_hash, created_ts, admin) VALUES ($1, $2, $3, $4)")

    /// Adds an account; fails as a constraint if the user has one.
    public mutating func insertAccount(_ user: UserNID, passwordHash: String?, admin: Bool, at time: Int64) {
        run(Self.insertAccount, user.value, .optional(passwordHash), .integer(time), .flag(admin))
    }

    private static let setPassword = Statement("UPDATE accounts SET password_hash = $2 WHERE user_nid = $1")
    private static let setAdmin = Statement("UPDATE accounts SET admin = $2 WHERE user_nid = $1")
    private static let deactivate = Statement(
        "UPDATE accounts SET deactivated_ts = $2, password_hash = NULL WHERE user_nid = $1 AND deactivated_ts IS NULL")
    private static let setProfile = Statement(
        "UPDATE accounts SET display_name = $2, avatar_url = $3 WHERE user_nid = $1")

    public mutating func setPasswordHash(_ hash: String?, of user: UserNID) {
        expect(1, otherwise: "there is no such account", Self.setPassword, user.value, .optional(hash))
    }

    public mutating func setAdmin(_ admin: Bool, of user: UserNID) {
        expect(1, otherwise: "there is no such account", Self.setAdmin, user.value, .flag(admin))
    }

    public mutating func deactivate(_ user: UserNID, at time: Int64) {
        expect(1, otherwise: "the account is deactivated already", Self.deactivate, user.value, .integer(time))
    }

    public mutating func setProfile(displayName: String?, avatarURL: String?, of user: UserNID) {
        expect(
            1, otherwise: "there is no such account", Self.setProfile, user.value, .optional(displayName),
            .optional(avatarURL))
    }
}
