import Database
import MatrixCore

/// Dehydrated devices (MSC3814): a device without a client, which receives keys while its user has no other device, and is taken
/// up by the next one.
public final class DehydratedDeviceService: Sendable {
    private let database: Database
    private let toDevice: ToDeviceService
    private let surroundings: Surroundings

    private static let largestData = 262_144

    init(database: Database, toDevice: ToDeviceService, surroundings: Surroundings) {
        self.database = database
        self.toDevice = toDevice
        self.surroundings = surroundings
    }

    private static let none = MatrixError.notFound("You have no dehydrated device.")

    /// Puts a device away, in place of the one there was.
    ///
    /// - Returns: its ID.
    public func put(_ body: JSONView, for requester: Requester) async throws -> String {
        let deviceID = try body.requiredString("device_id")
        guard DeviceID(deviceID) != nil else {
            throw MatrixError.invalidParam("The device ID is empty, too long, or has control characters in it.")
        }
        guard let data = try body.optionalObject("device_data") else { throw MatrixError.missingParam("device_data") }
        _ = try data.requiredString("algorithm")
        guard data.range.count <= Self.largestData else {
            throw MatrixError.tooLarge("“device_data” may have \(Self.largestData) bytes.")
        }
        let name = try body.optionalString("initial_device_display_name").map { $0.shortened(to: 100) }
        guard let deviceKeys = try body.optionalObject("device_keys") else {
            throw MatrixError.missingParam("device_keys")
        }
        let json = try UploadedKeys.deviceKeys(deviceKeys, of: requester.userID, deviceID)
        let oneTime = try body.optionalObject("one_time_keys").map { try UploadedKeys.publicKeys($0) } ?? []
        let fallback = try body.optionalObject("fallback_keys").map { try UploadedKeys.publicKeys($0) } ?? []
        let crossSigning = try await database.read { try await self.database.crossSigningKeys(of: [requester.nid], $0) }
        guard !crossSigning.contains(where: { $0.publicKey.hasSameBytes(as: deviceID) }) else {
            throw MatrixError.invalidParam("The device ID is the name of one of your cross-signing keys.")
        }
        var write = Write()
        if let old = try await database.dehydratedDevice(of: requester.nid) {
            write.deleteDevice(old.deviceID, of: requester.nid)
        }
        write.insertDehydratedDevice(
            deviceID, data: [UInt8](data.raw), displayName: name, of: requester.nid, at: surroundings.now())
        write.putDeviceKeys(json, of: requester.nid, deviceID)
        if !oneTime.isEmpty { write.addOneTimeKeys(oneTime, of: requester.nid, deviceID) }
        try DeviceKeyService.putFallbackKeys(fallback, of: requester.nid, deviceID, in: &write)
        write.changeDeviceList(of: requester.nid)
        try await database.announceDevices(of: requester.nid, in: &write)
        do { try await database.write(write) } catch DatabaseError.constraint {
            throw MatrixError.invalidParam("You have another device with this ID; a dehydrated device needs its own.")
        }
        return deviceID
    }

    /// - Throws: `M_NOT_FOUND` if there is none.
    public func get(for requester: Requester) async throws -> DehydratedDevice {
        guard let device = try await database.dehydratedDevice(of: requester.nid) else { throw Self.none }
        return device
    }

    /// Deletes the dehydrated device.
    ///
    /// - Returns: its ID.
    /// - Throws: `M_NOT_FOUND` if there is none.
    public func delete(for requester: Requester) async throws -> String {
        let device = try await get(for: requester)
        var write = Write()
        write.deleteDevice(device.deviceID, of: requester.nid)
        try await database.announceDevices(of: requester.nid, in: &write)
        try await database.write(write)
        return device.deviceID
    }

    /// The messages to the dehydrated device. They stay until the device is deleted: whoever takes it up may be interrupted.
    ///
    /// - Parameters:
    ///   - from: what an earlier answer said.
    /// - Returns: the events, where to go on, and whether there are more.
    /// - Throws: `M_FORBIDDEN` if the device isn't the dehydrated one.
    public func events(
        of deviceID: String, from: String?, for requester: Requester
    ) async throws -> (events: [JSON], next: String, hasMore: Bool) {
        guard let device = try await database.dehydratedDevice(of: requester.nid),
            device.deviceID.hasSameBytes(as: deviceID)
        else { throw MatrixError.forbidden("This is not your dehydrated device.") }
        let upTo = database.committedPosition
        guard let after = from.map({ Int64($0) }) ?? 0, after >= 0 else {
            throw MatrixError.invalidParam("“\(from ?? "")” is not a token that this server gave out.")
        }
        let page = try await toDevice.messages(to: deviceID, of: requester.nid, after: after, upTo: upTo)
        return (page.events, String(page.rest ?? max(upTo, after)), page.rest != nil)
    }
}
