import Database
import MatrixCore

/// Whose lists of devices have changed for somebody.
public struct DeviceListChanges: Sendable, Equatable {
    /// Users whose devices or cross-signing keys are others, or who share a room now and didn't before.
    public var changed: Set<UserID> = []
    /// Users who share no room any more.
    public var left: Set<UserID> = []

    public var isEmpty: Bool { changed.isEmpty && left.isEmpty }
}

/// What clients need to know to keep the lists of devices of those they share rooms with (Client-Server API, "Tracking the
/// device list for a user").
///
/// Nothing is stored for readers: a change of devices is one row with its position, joins and leaves are seen from the
/// memberships, and what held before from the state of rooms at a position.
public final class DeviceListService: Sendable {
    private let rooms: RoomRegistry
    private let activity: Activity
    private var database: Database { rooms.database }
    private var context: RoomContext { rooms.context }

    init(rooms: RoomRegistry, activity: Activity) {
        self.rooms = rooms
        self.activity = activity
    }

    /// What has changed for a user since a position.
    ///
    /// - Parameter memberships: the user's, as they are now.
    public func changes(
        for requester: Requester, since: Int64, memberships: [RoomMembership]
    ) async throws -> DeviceListChanges {
        let joined = memberships.filter { $0.membership == .join }.map(\.room)
        // Rooms in which members may have come or gone since.
        let moved = activity.changed(joined, after: since)
        let devicesChanged =
            activity.deviceListsMayHaveChanged(after: since) || activity.mayHaveChanged(requester.nid, after: since)
        let concerned = memberships.filter { $0.position > since || moved.contains($0.room) }
        if concerned.isEmpty, !devicesChanged { return DeviceListChanges() }
        let lastChanges = activity.lastChanges(of: concerned.map(\.room))
        return try await database.read { reader in
            var changed: Set<UserNID> = []
            if devicesChanged {
                changed = try await self.database.usersWithChangedDevices(
                    sharingWith: requester.nid, after: since, reader)
            }
            var left: Set<UserNID> = []
            for membership in concerned {
                let moved = try await self.context.glances.of(membership.room, asOf: lastChanges[membership.room])
                    .movers(after: since, reader)
                try await self.compare(membership, moved, since, requester, &changed, &left, reader)
            }
            left.remove(requester.nid)
            left.subtract(try await self.database.users(Array(left), sharingWith: requester.nid, reader))
            changed.subtract(left)
            let names = try await self.database.users(Array(changed.union(left)))
            return DeviceListChanges(
                changed: Set(changed.compactMap { names[$0] }), left: Set(left.compactMap { names[$0] }))
        }
    }

    /// Adds those who share a room now and didn't, and those who did and may not any more.
    private func compare(
        _ membership: RoomMembership, _ moved: [Database.Mover], _ since: Int64, _ requester: Requester,
        _ changed: inout Set<UserNID>, _ left: inout Set<UserNID>, _ reader: any Reader
    ) async throws {
        let room = membership.room
        let isIn = membership.membership == .join
        let others = moved.filter { $0.user != requester.nid }
        var asked = others.map(\.user)
        let mayHaveMoved = membership.position > since
        if mayHaveMoved { asked.append(requester.nid) }
        if asked.isEmpty { return }
        let before = try await joined(asked, in: room, at: since, reader)
        let wasIn = mayHaveMoved ? before.contains(requester.nid) : isIn
        if !isIn, !wasIn { return }
        if isIn, !wasIn {
            changed.formUnion(try await database.users(in: room, .join, reader).filter { $0 != requester.nid })
            return
        }
        if !isIn {
            let movers = Set(others.map(\.user))
            // Who joined since was never shared with.
            left.formUnion(try await database.users(in: room, .join, reader).filter { !movers.contains($0) })
            left.formUnion(before)
            return
        }
        for mover in others where mover.isJoined != before.contains(mover.user) {
            if mover.isJoined { changed.insert(mover.user) } else { left.insert(mover.user) }
        }
    }

    /// Those of the users who were joined to a room at a position.
    private func joined(
        _ users: [UserNID], in room: RoomNID, at position: Int64, _ reader: any Reader
    ) async throws -> Set<UserNID> {
        let state = try await database.state(of: room, at: position, reader)
        if state == StateNID(0) { return [] }
        let names = try await database.users(users)
        let keys = try await database.existingNumbers(ofStateKeys: names.values.map { .member($0) })
        let tree = StateTree(rows: database.stateRows, room: room)
        var owners: [EventNID: UserNID] = [:]
        for user in users {
            guard let name = names[user], let key = keys[.member(name)],
                let event = try await tree.event(for: key, in: state, reader)
            else { continue }
            owners[event] = user
        }
        let version = try await rooms.room(room).version
        var joined: Set<UserNID> = []
        for event in try await database.events(owners.keys.sorted(), reader) {
            guard let user = owners[event.nid],
                Membership(try context.parse(event, version).content["membership"]) == .join
            else { continue }
            joined.insert(user)
        }
        return joined
    }

    /// The changes since a sync's token (`GET /keys/changes`). What is newer than `to` may be among them.
    public func changes(
        since: Int64, for requester: Requester
    ) async throws -> DeviceListChanges {
        let memberships = try await database.read { try await self.database.memberships(of: requester.nid, $0) }
        return try await changes(for: requester, since: since, memberships: memberships)
    }
}
