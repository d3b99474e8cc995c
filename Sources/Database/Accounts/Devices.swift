/// The device and user that an access token stands for.
public struct TokenOwner: Sendable {
    public let user: UserNID
    public let deviceID: String
    public let expiresTS: Int64?
}

extension Database {
    private static let findToken = Statement(
        "SELECT user_nid, device_id, expires_ts FROM access_tokens WHERE token_hash = $1")

    /// Whose access token this is the SHA-256 of.
    public func owner(ofToken hash: [UInt8]) async throws -> TokenOwner? {
        try await read { reader in
            try await reader.first(Self.findToken, [.blob(hash)]) { row in
                TokenOwner(user: UserNID(row.integer(0)), deviceID: row.text(1), expiresTS: row.optionalInteger(2))
            }
        }
    }

    private static let devices = Statement("SELECT device_id FROM devices WHERE user_nid = $1 ORDER BY device_id")

    public func deviceIDs(of user: UserNID) async throws -> [String] {
        try await read { try await $0.query(Self.devices, [user.value]) { $0.text(0) } }
    }
}

extension Write {
    private static let putDevice = Statement(
        """
        INSERT INTO devices (user_nid, device_id, display_name, created_ts) VALUES ($1, $2, $3, $4)
        ON CONFLICT (user_nid, device_id) DO UPDATE SET display_name = coalesce(devices.display_name, excluded.display_name)
        """)
    private static let insertToken = Statement(
        "INSERT INTO access_tokens (token_hash, user_nid, device_id, created_ts) VALUES ($1, $2, $3, $4)")
    private static let deleteTokens = Statement("DELETE FROM access_tokens WHERE user_nid = $1 AND device_id = $2")
    private static let deleteAllTokens = Statement("DELETE FROM access_tokens WHERE user_nid = $1")
    private static let deleteDevice = Statement("DELETE FROM devices WHERE user_nid = $1 AND device_id = $2")
    private static let deleteDevices = Statement("DELETE FROM devices WHERE user_nid = $1")

    /// Gives a device, new or known, an access token; older tokens of the device end.
    public mutating func logIn(
        _ user: UserNID, deviceID: String, displayName: String?, tokenHash: [UInt8], at time: Int64
    ) {
        run(Self.putDevice, user.value, .text(deviceID), .optional(displayName), .integer(time))
        run(Self.deleteTokens, user.value, .text(deviceID))
        run(Self.insertToken, .blob(tokenHash), user.value, .text(deviceID), .integer(time))
    }

    /// Ends a device, and its access tokens with it.
    public mutating func deleteDevice(_ deviceID: String, of user: UserNID) {
        run(Self.deleteTokens, user.value, .text(deviceID))
        run(Self.deleteDevice, user.value, .text(deviceID))
    }

    public mutating func deleteAllDevices(of user: UserNID) {
        run(Self.deleteAllTokens, user.value)
        run(Self.deleteDevices, user.value)
    }
}
