/// A device that its owner has put away, to be taken up by another one later (MSC3814).
public struct DehydratedDevice: Sendable {
    public let deviceID: String
    /// A JSON object, encrypted by the client.
    public let deviceData: [UInt8]
}

extension Database {
    private static let find = Statement("SELECT device_id, device_data FROM dehydrated_devices WHERE user_nid = $1")

    public func dehydratedDevice(of user: UserNID) async throws -> DehydratedDevice? {
        try await readOnce { reader in
            try await reader.first(Self.find, [user.value]) {
                DehydratedDevice(deviceID: $0.text(0), deviceData: $0.blob(1))
            }
        }
    }
}

extension Write {
    private static let putDevice = Statement(
        "INSERT INTO devices (user_nid, device_id, display_name, created_ts) VALUES ($1, $2, $3, $4)")
    private static let put = Statement(
        "INSERT INTO dehydrated_devices (user_nid, device_id, device_data) VALUES ($1, $2, $3)")

    /// Adds a user's dehydrated device; fails as a constraint if there is one, or another device of the same name.
    public mutating func insertDehydratedDevice(
        _ deviceID: String, data: [UInt8], displayName: String?, of user: UserNID, at time: Int64
    ) {
        run(Self.putDevice, user.value, .text(deviceID), .optional(displayName), .integer(time))
        run(Self.put, user.value, .text(deviceID), .blob(data))
    }
}
