import MatrixCore

/// What is out of the ordinary about an account. The raw value is stored.
public struct AccountStanding: OptionSet, Sendable, Hashable {
    public let rawValue: Int64
    public init(rawValue: Int64) { self.rawValue = rawValue }
    /// Client-Server API, "Guest Access".
    public static let guest = AccountStanding(rawValue: 1)
    /// Client-Server API, "Account locking".
    public static let locked = AccountStanding(rawValue: 2)
    /// Client-Server API, "Account suspension".
    public static let suspended = AccountStanding(rawValue: 4)
    /// The user left for good and wanted what was said to be erased.
    public static let erased = AccountStanding(rawValue: 8)
}

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
    public let standing: AccountStanding

    public var isDeactivated: Bool { deactivatedTS != nil }
}

extension Database {
    private static let columns = """
        a.user_nid, u.user_id, a.password_hash, a.created_ts, a.admin, a.deactivated_ts, a.display_name, a.avatar_url,
        a.standing
        """
    private static let byNumber = Statement(
        "SELECT \(columns) FROM accounts a JOIN users u ON u.user_nid = a.user_nid WHERE a.user_nid = $1")
    private static let all = Statement(
        "SELECT \(columns) FROM accounts a JOIN users u ON u.user_nid = a.user_nid ORDER BY u.user_id")

    private static func account(_ row: any Row) -> Account {
        Account(
            nid: UserNID(row.integer(0)), userID: UserID(unchecked: row.text(1)), passwordHash: row.optionalText(2),
            createdTS: row.integer(3), isAdmin: row.flag(4), deactivatedTS: row.optionalInteger(5),
            displayName: row.optionalText(6), avatarURL: row.optionalText(7),
            standing: AccountStanding(rawValue: row.integer(8)))
    }

    public func account(_ nid: UserNID) async throws -> Account? {
        try await readOnce { try await $0.first(Self.byNumber, [nid.value], Self.account) }
    }

    public func account(of user: UserID) async throws -> Account? {
        guard let nid = try await existingNumber(ofUser: user) else { return nil }
        return try await account(nid)
    }

    private static let erased = Statement(
        "SELECT user_nid FROM accounts WHERE standing >= 8 AND deactivated_ts IS NOT NULL")

    /// Those who wanted what they said to be erased.
    public func erasedUsers() async throws -> Set<UserNID> {
        Set(try await read { try await $0.query(Self.erased, []) { UserNID($0.integer(0)) } })
    }

    /// All accounts, in the order of their user IDs.
    public func accounts() async throws -> [Account] {
        try await read { try await $0.query(Self.all, [], Self.account) }
    }
}

extension Write {
    private static let insertAccount = Statement(
        "INSERT INTO accounts (user_nid, password_hash, created_ts, admin, standing) VALUES ($1, $2, $3, $4, $5)")

    /// Adds an account; fails as a constraint if the user has one.
    public mutating func insertAccount(
        _ user: UserNID, passwordHash: String?, admin: Bool, standing: AccountStanding = [], at time: Int64
    ) {
        run(
            Self.insertAccount, user.value, .optional(passwordHash), .integer(time), .flag(admin),
            .integer(standing.rawValue))
    }

    private static let setStanding = Statement(
        """
        UPDATE accounts SET standing = (standing | $2) & ~$3
        WHERE user_nid = $1 AND (deactivated_ts IS NULL OR $2 = 8)
        """)
    private static let upgradeGuest = Statement(
        "UPDATE accounts SET standing = standing - 1, password_hash = $2 WHERE user_nid = $1 AND standing & 1 = 1")
    private static let replacePassword = Statement(
        "UPDATE accounts SET password_hash = $3 WHERE user_nid = $1 AND password_hash = $2")

    /// Changes what is out of the ordinary about an account; fails as a conflict if it is deactivated.
    public mutating func changeStanding(
        of user: UserNID, adding: AccountStanding = [], removing: AccountStanding = []
    ) {
        expect(
            1, otherwise: "there is no such account", Self.setStanding, user.value, .integer(adding.rawValue),
            .integer(removing.rawValue))
    }

    /// Makes a guest an account like others; fails as a conflict if it is one already.
    public mutating func upgradeGuest(_ user: UserNID, passwordHash: String?) {
        expect(1, otherwise: "the account is no guest's", Self.upgradeGuest, user.value, .optional(passwordHash))
    }

    private static let requirePassword = Statement(
        "UPDATE accounts SET password_hash = $2 WHERE user_nid = $1 AND password_hash = $2 AND deactivated_ts IS NULL")

    /// Lets the write happen only while the password is the one that was looked at; it fails as a conflict otherwise.
    public mutating func requirePasswordHash(_ hash: String, of user: UserNID) {
        expect(1, otherwise: "the password has changed", Self.requirePassword, user.value, .text(hash))
    }

    /// Replaces a hash by another one of the same password, unless the password has changed meanwhile.
    public mutating func replacePasswordHash(_ old: String, by new: String, of user: UserNID) {
        run(Self.replacePassword, user.value, .text(old), .text(new))
    }

    private static let setPassword = Statement("UPDATE accounts SET password_hash = $2 WHERE user_nid = $1")
    private static let setAdmin = Statement("UPDATE accounts SET admin = $2 WHERE user_nid = $1")
    private static let deactivate = Statement(
        "UPDATE accounts SET deactivated_ts = $2, password_hash = NULL WHERE user_nid = $1 AND deactivated_ts IS NULL")
    private static let setDisplayName = Statement("UPDATE accounts SET display_name = $2 WHERE user_nid = $1")
    private static let setAvatarURL = Statement("UPDATE accounts SET avatar_url = $2 WHERE user_nid = $1")

    public mutating func setPasswordHash(_ hash: String?, of user: UserNID) {
        expect(1, otherwise: "there is no such account", Self.setPassword, user.value, .optional(hash))
    }

    public mutating func setAdmin(_ admin: Bool, of user: UserNID) {
        expect(1, otherwise: "there is no such account", Self.setAdmin, user.value, .flag(admin))
    }

    public mutating func deactivate(_ user: UserNID, at time: Int64) {
        expect(1, otherwise: "the account is deactivated already", Self.deactivate, user.value, .integer(time))
    }

    /// Sets one of the two and leaves the other as it is, whoever changes that at the same time.
    public mutating func setDisplayName(_ name: String?, of user: UserNID) {
        expect(1, otherwise: "there is no such account", Self.setDisplayName, user.value, .optional(name))
    }

    public mutating func setAvatarURL(_ url: String?, of user: UserNID) {
        expect(1, otherwise: "there is no such account", Self.setAvatarURL, user.value, .optional(url))
    }
}
