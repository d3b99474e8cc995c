/// The device and user that an access token stands for.
public struct TokenOwner: Sendable {
    public let user: UserNID
    public let deviceID: String
    public let expiresTS: Int64?
    /// The refresh token that is spent once this token is used.
    public let spendsRefreshToken: [UInt8]?
    public let isAdmin: Bool
    public let standing: AccountStanding
}

/// A device of a user.
public struct Device: Sendable {
    public let deviceID: String
    public let displayName: String?
    public let lastSeenTS: Int64?
    public let lastSeenIP: String?
    public let userAgent: String?
}

extension Database {
    private static let findToken = Statement(
        """
        SELECT a.user_nid, a.device_id, a.expires_ts, r.parent_hash, c.admin, c.standing
        FROM access_tokens a JOIN accounts c ON c.user_nid = a.user_nid AND c.deactivated_ts IS NULL
        LEFT JOIN refresh_tokens r ON r.token_hash = a.refresh_hash WHERE a.token_hash = $1
        """)

    /// Whose access token this is the SHA-256 of; nobody's, if the account is deactivated.
    public func owner(ofToken hash: [UInt8]) async throws -> TokenOwner? {
        try await readOnce { reader in
            try await reader.first(Self.findToken, [.blob(hash)]) { row in
                TokenOwner(
                    user: UserNID(row.integer(0)), deviceID: row.text(1), expiresTS: row.optionalInteger(2),
                    spendsRefreshToken: row.optionalBlob(3), isAdmin: row.flag(4),
                    standing: AccountStanding(rawValue: row.integer(5)))
            }
        }
    }

    private static let details = Statement(
        """
        SELECT device_id, display_name, last_seen_ts, last_seen_ip, user_agent FROM devices
        WHERE user_nid = $1 ORDER BY device_id
        """)

    /// All devices of a user.
    public func devices(of user: UserNID) async throws -> [Device] {
        try await readOnce { reader in
            try await reader.query(Self.details, [user.value]) { row in
                Device(
                    deviceID: row.text(0), displayName: row.optionalText(1), lastSeenTS: row.optionalInteger(2),
                    lastSeenIP: row.optionalText(3), userAgent: row.optionalText(4))
            }
        }
    }

    private static let devices = Statement("SELECT device_id FROM devices WHERE user_nid = $1 ORDER BY device_id")

    /// The IDs of the devices of each of the users.
    public func deviceIDs(of users: [UserNID]) async throws -> [UserNID: [String]] {
        let found = try await readOnce { reader in
            try await reader.queryEach(Self.devices, users.map { [$0.value] }) { (users[$0], $1.text(0)) }
        }
        return Dictionary(grouping: found, by: \.0).mapValues { $0.map(\.1) }
    }

    public func deviceIDs(of user: UserNID) async throws -> [String] {
        try await readOnce { try await $0.query(Self.devices, [user.value]) { $0.text(0) } }
    }
}

extension Write {
    private static let putDevice = Statement(
        """
        INSERT INTO devices (user_nid, device_id, display_name, created_ts) VALUES ($1, $2, $3, $4)
        ON CONFLICT (user_nid, device_id) DO UPDATE SET display_name = coalesce(devices.display_name, excluded.display_name)
        """)
    private static let insertToken = Statement(
        """
        INSERT INTO access_tokens (token_hash, user_nid, device_id, created_ts, expires_ts, refresh_hash)
        VALUES ($1, $2, $3, $4, $5, $6)
        """)
    private static let deleteRefresh = Statement("DELETE FROM refresh_tokens WHERE user_nid = $1 AND device_id = $2")
    private static let deleteAllRefresh = Statement("DELETE FROM refresh_tokens WHERE user_nid = $1")
    private static let seen = Statement(
        """
        UPDATE devices SET last_seen_ts = $3, last_seen_ip = $4, user_agent = $5
        WHERE user_nid = $1 AND device_id = $2
        """)
    private static let deleteTokens = Statement("DELETE FROM access_tokens WHERE user_nid = $1 AND device_id = $2")
    private static let deleteAllTokens = Statement("DELETE FROM access_tokens WHERE user_nid = $1")
    private static let deleteDevice = Statement("DELETE FROM devices WHERE user_nid = $1 AND device_id = $2")
    private static let deleteDevices = Statement("DELETE FROM devices WHERE user_nid = $1")

    /// Gives a device, new or known, an access token; older tokens of the device end.
    public mutating func logIn(
        _ user: UserNID, deviceID: String, displayName: String?, tokenHash: [UInt8], at time: Int64
    ) {
        putDevice(deviceID, of: user, displayName: displayName, at: time)
        endTokens(of: deviceID, of: user)
        insertToken(tokenHash, of: user, deviceID, expires: nil, refresh: nil, at: time)
    }

    /// Makes a device, if there is none; one that is there keeps its name.
    public mutating func putDevice(_ deviceID: String, of user: UserNID, displayName: String?, at time: Int64) {
        run(Self.putDevice, user.value, .text(deviceID), .optional(displayName), .integer(time))
    }

    mutating func insertToken(
        _ hash: [UInt8], of user: UserNID, _ deviceID: String, expires: Int64?, refresh: [UInt8]?, at time: Int64
    ) {
        run(
            Self.insertToken, .blob(hash), user.value, .text(deviceID), .integer(time), .optional(expires),
            .optional(refresh))
    }

    /// Ends all tokens of a device, which stays.
    public mutating func endTokens(of deviceID: String, of user: UserNID) {
        run(Self.deleteTokens, user.value, .text(deviceID))
        run(Self.deleteRefresh, user.value, .text(deviceID))
    }

    /// Notes when, from where and with what a device was seen last.
    public mutating func noteDevice(
        _ deviceID: String, of user: UserNID, seenAt time: Int64, address: String, userAgent: String?
    ) {
        run(Self.seen, user.value, .text(deviceID), .integer(time), .text(address), .optional(userAgent))
    }

    private static let rename = Statement("UPDATE devices SET display_name = $3 WHERE user_nid = $1 AND device_id = $2")

    public mutating func renameDevice(_ deviceID: String, to name: String?, of user: UserNID) {
        changeDeviceList(of: user, ifHasKeys: deviceID)
        expect(1, otherwise: "the device is gone", Self.rename, user.value, .text(deviceID), .optional(name))
    }

    /// Ends a device, and its access tokens, keys and pushers with it. Who must hear of it: ``Database/announceDevices(of:in:)``.
    public mutating func deleteDevice(_ deviceID: String, of user: UserNID) {
        deleteKeys(ofDevice: deviceID, of: user)
        deletePushers(ofDevice: deviceID, of: user)
        endTokens(of: deviceID, of: user)
        endSlidingConnections(of: deviceID, of: user)
        run(Self.deleteDevice, user.value, .text(deviceID))
    }

    private static let otherSessions = ["access_tokens", "refresh_tokens", "devices"].map { table in
        Statement("DELETE FROM \(table) WHERE user_nid = $1 AND device_id <> $2")
    }

    /// Ends all sessions of a user but one, also those that nobody knew of when the write was made. Behind a change of the password it
    /// meets each that came with the old one: who signs in holds the account's row until the session is there.
    public mutating func endSessions(of user: UserNID, except deviceID: String) {
        for statement in Self.otherSessions { run(statement, user.value, .text(deviceID)) }
    }

    public mutating func deleteAllDevices(of user: UserNID) {
        deleteKeysOfDevices(of: user)
        deletePushers(of: user)
        run(Self.deleteAllTokens, user.value)
        run(Self.deleteAllRefresh, user.value)
        endBriefTokens(of: user)
        endSlidingConnections(of: user)
        run(Self.deleteDevices, user.value)
    }
}
