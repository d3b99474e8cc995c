import MatrixCore

/// The identity keys of a device, as it has uploaded them.
public struct StoredDeviceKeys: Sendable {
    public let user: UserNID
    public let deviceID: String
    /// Canonical JSON.
    public let json: [UInt8]
    public let displayName: String?
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

    /// Counts as clients are told them, in the order of their names. That none are left is told of the algorithm that all use: the
    /// specification lets it be left out, but there are clients that take an algorithm of which they hear nothing for one of which
    /// enough are left, and never upload any.
    public static func shown(_ counts: [String: Int]) -> [(algorithm: String, count: Int)] {
        let usual = "signed_curve25519"
        // Nearly every device has keys of this one, if of any.
        if counts.isEmpty { return [(usual, 0)] }
        if counts.count == 1, let count = counts[usual] { return [(usual, count)] }
        return counts.merging([usual: 0]) { count, _ in count }.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
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

    private static let ofDeletedDevice = ["device_keys", "one_time_key_pools", "fallback_keys"].map {
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
            "device_keys", "one_time_key_pools", "fallback_keys", "dehydrated_devices", "to_device",
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
