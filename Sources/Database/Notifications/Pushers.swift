import MatrixCore

/// A way to a user's device through a push gateway, as a client set it (Client-Server API, "Push notifications").
public struct Pusher: Sendable {
    public let user: UserNID
    public let appID: String
    public let pushkey: String
    /// The device that set it, with which it ends; empty for an application service that speaks for no device.
    public let deviceID: String
    /// What clients are told of it.
    public let json: [UInt8]

    public init(user: UserNID, appID: String, pushkey: String, deviceID: String, json: [UInt8]) {
        self.user = user
        self.appID = appID
        self.pushkey = pushkey
        self.deviceID = deviceID
        self.json = json
    }
}

extension Database {
    private static let ofUser = Statement(
        """
        SELECT app_id, pushkey, device_id, json FROM pushers WHERE user_nid = $1 ORDER BY created_ts, app_id, pushkey
        """)

    /// A user's pushers, oldest first. One range of one table.
    public func pushers(of user: UserNID) async throws -> [Pusher] {
        try await readOnce { reader in
            try await reader.query(Self.ofUser, [user.value]) {
                Pusher(user: user, appID: $0.text(0), pushkey: $0.text(1), deviceID: $0.text(2), json: $0.blob(3))
            }
        }
    }
}

extension Write {
    private static let put = Statement(
        """
        INSERT INTO pushers (user_nid, app_id, pushkey, device_id, created_ts, json) VALUES ($1, $2, $3, $4, $5, $6)
        ON CONFLICT (user_nid, app_id, pushkey) DO UPDATE SET device_id = excluded.device_id, json = excluded.json
        """)
    private static let delete = Statement("DELETE FROM pushers WHERE user_nid = $1 AND app_id = $2 AND pushkey = $3")
    private static let deleteOthers = Statement(
        "DELETE FROM pushers WHERE app_id = $1 AND pushkey = $2 AND user_nid <> $3")
    private static let deleteOfDevice = Statement("DELETE FROM pushers WHERE user_nid = $1 AND device_id = $2")
    private static let deleteOfUser = Statement("DELETE FROM pushers WHERE user_nid = $1")

    /// Makes a pusher, or changes it.
    ///
    /// - Parameter onlyOne: whether pushers of others with the same key end: the device has another user now.
    public mutating func put(_ pusher: Pusher, onlyOne: Bool, at time: Int64) {
        if onlyOne { run(Self.deleteOthers, .text(pusher.appID), .text(pusher.pushkey), pusher.user.value) }
        run(
            Self.put, pusher.user.value, .text(pusher.appID), .text(pusher.pushkey), .text(pusher.deviceID),
            .integer(time), .blob(pusher.json))
    }

    public mutating func deletePusher(_ pushkey: String, appID: String, of user: UserNID) {
        run(Self.delete, user.value, .text(appID), .text(pushkey))
    }

    /// Ends the pushers that a device has set.
    mutating func deletePushers(ofDevice deviceID: String, of user: UserNID) {
        run(Self.deleteOfDevice, user.value, .text(deviceID))
    }

    mutating func deletePushers(of user: UserNID) { run(Self.deleteOfUser, user.value) }
}
