import MatrixCore

/// The identity keys of a device, as it has uploaded them.
public struct StoredDeviceKeys: Sendable {
    public let user: UserNID
    public let deviceID: String
    /// Canonical JSON.
    public let json: [UInt8]
    public let displayName: String?
}

/// A public key for one use, or for when those have run out (Client-Server API, "One-time and fallback keys").
public struct PublicKey: Sendable {
    public let algorithm: String
    public let keyID: String
    /// The key itself: a string, or an object with signatures.
    public let json: [UInt8]
    /// Of the public key, whatever its name and signatures.
    public let hash: [UInt8]

    public init(algorithm: String, keyID: String, json: [UInt8], publicKey: String) {
        self.algorithm = algorithm
        self.keyID = keyID
        self.json = json
        hash = Array(Hashing.sha256(Array(publicKey.utf8)).prefix(16))
    }
}

/// What a client is told of its own device's keys with each sync.
public struct DeviceKeyCounts: Sendable, Equatable {
    /// Unclaimed one-time keys, by algorithm.
    public var oneTime: [String: Int]
    /// The algorithms of the fallback keys that have not been used.
    public var unusedFallback: [String]

    public init(oneTime: [String: Int] = [:], unusedFallback: [String] = []) {
        self.oneTime = oneTime
        self.unusedFallback = unusedFallback
    }
}

extension Database {
    private static let ofUser = Statement(
        """
        SELECT k.device_id, k.json, d.display_name FROM device_keys k
        LEFT JOIN devices d ON d.user_nid = k.user_nid AND d.device_id = k.device_id WHERE k.user_nid = $1
        """)
    private static let ofDevice = Statement(
        """
        SELECT k.device_id, k.json, d.display_name FROM device_keys k
        LEFT JOIN devices d ON d.user_nid = k.user_nid AND d.device_id = k.device_id
        WHERE k.user_nid = $1 AND k.device_id = $2
        """)

    private static func keys(of user: UserNID, _ row: any Row) -> StoredDeviceKeys {
        StoredDeviceKeys(user: user, deviceID: row.text(0), json: row.blob(1), displayName: row.optionalText(2))
    }

    /// The keys of all devices of the users.
    public func deviceKeys(of users: [UserNID], _ reader: any Reader) async throws -> [StoredDeviceKeys] {
        try await reader.queryEach(Self.ofUser, users.map { [$0.value] }) { Self.keys(of: users[$0], $1) }
    }

    /// The keys of single devices.
    public func deviceKeys(
        of devices: [(user: UserNID, deviceID: String)], _ reader: any Reader
    ) async throws -> [StoredDeviceKeys] {
        try await reader.queryEach(Self.ofDevice, devices.map { [$0.user.value, .text($0.deviceID)] }) {
            Self.keys(of: devices[$0].user, $1)
        }
    }

    private static let oneTimeKey = Statement(
        "SELECT json FROM one_time_keys WHERE user_nid = $1 AND device_id = $2 AND algorithm = $3 AND key_id = $4")

    /// The unclaimed one-time keys of a device that have the same names as those given, by their place among them.
    public func oneTimeKeys(
        named keys: [PublicKey], of user: UserNID, _ deviceID: String
    ) async throws -> [Int: [UInt8]] {
        let values = keys.map { [user.value, .text(deviceID), .text($0.algorithm), .text($0.keyID)] }
        let found = try await read { reader in
            try await reader.queryEach(Self.oneTimeKey, values) { ($0, $1.blob(0)) }
        }
        return Dictionary(uniqueKeysWithValues: found)
    }

    private static let countKeys = Statement(
        "SELECT algorithm, count(*) FROM one_time_keys WHERE user_nid = $1 AND device_id = $2 GROUP BY algorithm")
    private static let unusedFallback = Statement(
        """
        SELECT algorithm FROM fallback_keys WHERE user_nid = $1 AND device_id = $2 AND used = 0 ORDER BY algorithm
        """)

    public func keyCounts(
        of user: UserNID, _ deviceID: String, _ reader: any Reader
    ) async throws -> DeviceKeyCounts {
        let values: [SQLValue] = [user.value, .text(deviceID)]
        let counts = try await reader.query(Self.countKeys, values) { ($0.text(0), Int($0.integer(1))) }
        return DeviceKeyCounts(
            oneTime: Dictionary(uniqueKeysWithValues: counts),
            unusedFallback: try await reader.query(Self.unusedFallback, values) { $0.text(0) })
    }
}

/// A key of a device that somebody asks for.
public struct KeyClaim: Sendable {
    public let user: UserNID
    public let deviceID: String
    public let algorithm: String

    public init(user: UserNID, deviceID: String, algorithm: String) {
        self.user = user
        self.deviceID = deviceID
        self.algorithm = algorithm
    }

    fileprivate var values: [SQLValue] { [user.value, .text(deviceID), .text(algorithm)] }
}

extension Write {
    private static let putKeys = Statement(
        """
        INSERT INTO device_keys (user_nid, device_id, json, position)
        SELECT $1, $2, $3, $4 WHERE EXISTS (SELECT 1 FROM devices WHERE user_nid = $1 AND device_id = $2)
        ON CONFLICT (user_nid, device_id) DO UPDATE SET json = excluded.json, position = excluded.position
        """)

    /// Sets a device's identity keys; fails as a conflict if the device is gone.
    public mutating func putDeviceKeys(_ json: [UInt8], of user: UserNID, _ deviceID: String) {
        let position = takePosition()
        expect(
            1, otherwise: "the device is gone", Self.putKeys, user.value, .text(deviceID), .blob(json), position)
    }

    private static let addKey = Statement(
        """
        INSERT INTO one_time_keys (user_nid, device_id, algorithm, key_id, position, key_hash, json)
        SELECT $1, $2, $3, $4, $5, $6, $7
        WHERE EXISTS (SELECT 1 FROM devices WHERE user_nid = $1 AND device_id = $2)
        AND NOT EXISTS (SELECT 1 FROM claimed_keys WHERE user_nid = $1 AND device_id = $2 AND key_hash = $6)
        ON CONFLICT DO NOTHING
        """, isIndependent: true)

    /// Adds one-time keys. One that was handed out before is not added again: a client repeats an upload whose answer it has
    /// not got, and meanwhile somebody may have claimed.
    public mutating func addOneTimeKeys(_ keys: [PublicKey], of user: UserNID, _ deviceID: String) {
        let position = takePosition()
        for key in keys {
            run(
                Self.addKey, user.value, .text(deviceID), .text(key.algorithm), .text(key.keyID), position,
                .blob(key.hash), .blob(key.json))
        }
    }

    private static let putFallback = Statement(
        """
        INSERT INTO fallback_keys (user_nid, device_id, algorithm, key_id, json)
        SELECT $1, $2, $3, $4, $5 WHERE EXISTS (SELECT 1 FROM devices WHERE user_nid = $1 AND device_id = $2)
        ON CONFLICT (user_nid, device_id, algorithm) DO UPDATE SET key_id = excluded.key_id, json = excluded.json,
            used = CASE WHEN fallback_keys.json = excluded.json THEN fallback_keys.used ELSE 0 END
        """)

    /// Sets a device's fallback keys, each instead of the one of its algorithm.
    public mutating func putFallbackKeys(_ keys: [PublicKey], of user: UserNID, _ deviceID: String) {
        for key in keys {
            run(
                Self.putFallback, user.value, .text(deviceID), .text(key.algorithm), .text(key.keyID), .blob(key.json))
        }
    }

    private static let forgetClaimed = Statement(
        """
        DELETE FROM claimed_keys WHERE user_nid = $1 AND device_id = $2 AND position <
        (SELECT position FROM claimed_keys WHERE user_nid = $1 AND device_id = $2 ORDER BY position DESC LIMIT 1 OFFSET $3)
        """)

    /// Forgets all but the last so many keys that were handed out.
    public mutating func forgetClaimedKeys(of user: UserNID, _ deviceID: String, but count: Int) {
        run(Self.forgetClaimed, user.value, .text(deviceID), .integer(Int64(count)))
    }

    private static let next = """
        FROM one_time_keys WHERE user_nid = $1 AND device_id = $2 AND algorithm = $3 ORDER BY position, key_id LIMIT 1
        """
    private static let noteClaimed = Statement(
        """
        INSERT INTO claimed_keys (user_nid, device_id, key_hash, position)
        SELECT user_nid, device_id, key_hash, $4 \(next) ON CONFLICT DO NOTHING
        """, isIndependent: true)
    private static let takeKey = Statement(
        """
        DELETE FROM one_time_keys WHERE user_nid = $1 AND device_id = $2 AND algorithm = $3
        AND key_id = (SELECT key_id \(next)) RETURNING key_id, json
        """, isIndependent: true)
    private static let useFallback = Statement(
        """
        UPDATE fallback_keys SET used = 1 WHERE user_nid = $1 AND device_id = $2 AND algorithm = $3 RETURNING key_id, json
        """)

    /// Takes the oldest one-time key of each device.
    ///
    /// Writes that take a position are carried out one after another on every engine, so each sees what the ones before have
    /// taken; and even without that a row is deleted once.
    ///
    /// - Parameter claims: of each device one for an algorithm.
    /// - Returns: the places of the rows among ``WriteResult/rows``: key ID and JSON.
    public mutating func takeOneTimeKeys(_ claims: [KeyClaim]) -> [Int] {
        let position = takePosition()
        for claim in claims { run(Self.noteClaimed, claim.values + [position]) }
        return claims.map { returning(Self.takeKey, $0.values) }
    }

    /// Marks the fallback key of each device as used.
    ///
    /// - Returns: the places of the rows, as ``takeOneTimeKeys(_:)`` does.
    public mutating func useFallbackKeys(_ claims: [KeyClaim]) -> [Int] {
        claims.map { returning(Self.useFallback, $0.values) }
    }

    private static let dropUnclaimed = Statement("DELETE FROM one_time_keys")
    private static let outdateFallback = Statement("UPDATE fallback_keys SET used = 1")

    /// Drops all unclaimed one-time keys: in a restored database some of them have been handed out since the backup. Clients
    /// see that they have none left and make new ones; fallback keys serve meanwhile, and are asked to be replaced.
    public mutating func dropUnclaimedKeys() {
        run(Self.dropUnclaimed)
        run(Self.outdateFallback)
    }

    private static let ofDeletedDevice = ["device_keys", "one_time_keys", "claimed_keys", "fallback_keys"].map {
        Statement("DELETE FROM \($0) WHERE user_nid = $1 AND device_id = $2")
    }
    private static let deleteDehydrated = Statement(
        "DELETE FROM dehydrated_devices WHERE user_nid = $1 AND device_id = $2")

    /// Deletes what belongs to a device that ends: its keys, signatures by and on them, and the messages that wait for it.
    /// The user's backup of room keys stays.
    mutating func deleteKeys(ofDevice deviceID: String, of user: UserNID) {
        changeDeviceList(of: user, ifHasKeys: deviceID)
        for statement in Self.ofDeletedDevice { run(statement, user.value, .text(deviceID)) }
        deleteSignatures(onKey: deviceID, of: user)
        deleteSignatures(by: "ed25519:\(deviceID)", of: user)
        run(Self.deleteDehydrated, user.value, .text(deviceID))
        deleteMessages(toDevice: deviceID, of: user)
    }

    private static let ofAllDevices =
        [
            "device_keys", "one_time_keys", "claimed_keys", "fallback_keys", "dehydrated_devices", "to_device",
            "to_device_cursors",
        ].map { Statement("DELETE FROM \($0) WHERE user_nid = $1") }
    private static let ofAccount = ["cross_signing_keys", "room_keys", "room_key_backups"].map {
        Statement("DELETE FROM \($0) WHERE user_nid = $1")
    }

    /// The same for all devices of a user.
    mutating func deleteKeysOfDevices(of user: UserNID) {
        changeDeviceList(of: user)
        for statement in Self.ofAllDevices { run(statement, user.value) }
        deleteOrphanedBodies()
    }

    /// Deletes the keys of a user whose account ends for good: cross-signing keys with all signatures, and backups.
    public mutating func deleteKeysOfAccount(of user: UserNID) {
        for statement in Self.ofAccount { run(statement, user.value) }
        deleteAllSignatures(of: user)
    }
}
