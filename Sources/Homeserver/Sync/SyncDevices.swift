import Database
import MatrixCore
import Synchronization

/// What belongs to a device in a sync (Client-Server API, "Extensions to /sync" of the modules "Send-to-Device messaging" and
/// "End-to-End Encryption").
struct SyncDevices: Sendable {
    var counts = DeviceKeyCounts()
    var messages = ToDeviceService.Page()
    var lists = DeviceListChanges()

    /// Whether there is anything that is worth waking a client for.
    var isEmpty: Bool { messages.events.isEmpty && lists.isEmpty }

    /// Writes the members of the answer.
    func write(into writer: inout JSONWriter) {
        if !messages.events.isEmpty {
            writer.key("to_device")
            writer.value(["events": .array(messages.events)])
        }
        if !lists.isEmpty {
            writer.key("device_lists")
            writer.value(lists.json)
        }
        writer.key(plain: "device_one_time_keys_count")
        writer.beginObject()
        for (algorithm, count) in DeviceKeyCounts.shown(counts.oneTime) {
            writer.key(algorithm)
            writer.integer(count)
        }
        writer.endObject()
        writer.key(plain: "device_unused_fallback_key_types")
        writer.beginArray()
        for algorithm in counts.unusedFallback { writer.string(algorithm) }
        writer.endArray()
    }
}

extension DeviceListChanges {
    public var json: JSON {
        [
            "changed": .array(changed.sorted().map { .string($0.string) }),
            "left": .array(left.sorted().map { .string($0.string) }),
        ]
    }
}

/// Finds what a device is told besides its user's rooms, for every way of syncing.
public final class DeviceSync: Sendable {
    private let database: Database
    private let activity: Activity
    private let keys: DeviceKeyService
    private let toDevice: ToDeviceService
    private let lists: DeviceListService

    private struct Device: Hashable {
        let user: UserNID
        let deviceID: ByteString

        init(_ requester: Requester) {
            user = requester.nid
            deviceID = ByteString(requester.deviceID)
        }
    }

    private struct Status: Sendable {
        var asOf: Int64
        var counts: DeviceKeyCounts
        /// Whether there may be any: they are deleted once they are received, of which nobody is told.
        var hasMessages: Bool
    }

    /// What was read of a device holds as long as nothing concerns its user: a sync that has nothing to tell asks the
    /// database for nothing. The lock protects the cache; nothing is awaited while it is held.
    private let known = Mutex(BoundedCache<Device, Status>(capacity: 50_000))

    init(
        database: Database, activity: Activity, keys: DeviceKeyService, toDevice: ToDeviceService,
        lists: DeviceListService
    ) {
        self.database = database
        self.activity = activity
        self.keys = keys
        self.toDevice = toDevice
        self.lists = lists
    }

    private func status(of requester: Requester) async throws -> Status {
        let device = Device(requester)
        if let status = known.withLock({ $0[device] }),
            !activity.mayHaveChanged(requester.nid, after: status.asOf)
        {
            return status
        }
        let asOf = database.committedPosition
        let status = try await database.read { reader in
            Status(
                asOf: asOf,
                counts: try await self.database.keyCounts(of: requester.nid, requester.deviceID, reader),
                hasMessages: try await self.toDevice.hasMessages(requester, reader))
        }
        known.withLock { $0.insert(status, for: device, size: 1) }
        return status
    }

    /// How many one-time keys the device has left, and which fallback keys are unused.
    public func keyCounts(of requester: Requester) async throws -> DeviceKeyCounts {
        try await status(of: requester).counts
    }

    /// The messages to the device between two positions.
    public func messages(for requester: Requester, after: Int64, upTo: Int64) async throws -> ToDeviceService.Page {
        guard try await status(of: requester).hasMessages else { return ToDeviceService.Page() }
        let page = try await toDevice.messages(
            to: requester.deviceID, of: requester.nid, after: after, upTo: upTo)
        // It may be that none are left, and is looked up again.
        if page.events.isEmpty { known.withLock { $0.remove(Device(requester)) } }
        return page
    }

    /// The device has received everything up to a position.
    public func acknowledge(_ position: Int64, by requester: Requester) async throws {
        guard try await status(of: requester).hasMessages else { return }
        try await toDevice.acknowledge(requester.deviceID, of: requester.nid, upTo: position)
    }

    /// Whose devices have changed since a position.
    ///
    /// - Parameter memberships: the user's, as they are now.
    public func deviceLists(
        for requester: Requester, since: Int64, _ memberships: [RoomMembership]
    ) async throws -> DeviceListChanges {
        try await lists.changes(for: requester, since: since, memberships: memberships)
    }
}

extension SyncBuilder {
    /// What the device is told.
    func devices(_ memberships: [RoomMembership]) async throws -> SyncDevices {
        let devices = service.devices
        var found = SyncDevices(
            counts: try await devices.keyCounts(of: requester),
            messages: try await devices.messages(
                for: requester, after: since?.toDevicePosition ?? 0, upTo: upTo.position))
        if let listsSince {
            found.lists = try await devices.deviceLists(for: requester, since: listsSince, memberships)
        }
        return found
    }

    /// The token behind what is told.
    ///
    /// - Parameter sticky: how far it came with sticky events.
    func nextBatch(_ devices: SyncDevices, _ sticky: StickyDelivery.Place? = nil) -> String {
        var token = upTo
        token.toDevice = devices.messages.rest
        token.sticky = sticky
        return token.text
    }
}
