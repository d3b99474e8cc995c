import Database
import Logging
import MatrixCore
import Synchronization

/// Who is there (Client-Server API, "Presence").
///
/// Kept in memory; changes are told at most once a second, all that came in between together, and written down then for
/// the other nodes and for after a restart. Nothing that anybody waits for waits for presence.
public final class PresenceService: Sendable {
    public typealias State = PresenceRecord.State

    private struct Entry: Sendable {
        var record: PresenceRecord
        var devices: [String: Device] = [:]
        /// The number of the last change that others were told of, and the rooms in which they see it.
        var serial: Int64 = 0
        var rooms: Set<RoomNID> = []
        /// Whether another node has it differently, perhaps.
        var isStale = false
        var isElsewhere: Bool { devices.isEmpty && wasRead }
        /// Whether it is what was written down, and nothing has been said since.
        var wasRead = false
    }

    private struct Device: Sendable {
        /// What it says, and when it was last heard of.
        var state: State
        var seen: Int64
        /// Its syncs that wait: it is there as long as one does.
        var waiting = 0

        mutating func say(_ state: State, _ now: Int64) {
            self.state = state
            seen = now
        }
    }

    private struct Table {
        var users: [UserNID: Entry] = [:]
        /// Changes that haven't been told yet.
        var pending: Set<UserNID> = []
        var told = ToldPresence()
        var isFlushPlanned = false
        var isSweepPlanned = false
        var isClosed = false
        var flushing: Task<Void, Never>?
    }

    private let database: Database
    private let notifier: Notifier
    private let surroundings: Surroundings
    private let serial: EphemeralSerial
    private let isEnabled: Bool
    private let logger: Logger
    private let ephemera: OutgoingEphemera
    /// The lock protects the table; nothing is awaited while it is held.
    private let table = Mutex(Table())

    /// A device that hasn't been heard of for so long is gone, in milliseconds: clients ask again when a sync is answered.
    static let devicePatience: Int64 = 30_000
    /// Who has done nothing for so long is not at the keyboard.
    static let idleAfter: Int64 = 300_000
    /// Active within this time counts as active now.
    static let activeFor: Int64 = 60_000
    /// How often changes are told, and how often it is looked who has gone.
    private static let flushEvery: Int64 = 1_000
    private static let sweepEvery: Int64 = 10_000
    /// Users that are remembered; beyond that those who are offline are forgotten.
    private static let mostUsers = 100_000
    /// Users told to a client that begins anew.
    static let mostTold = 500
    /// Online and idle for so long is hardly true.
    private static let forgottenAfter: Int64 = 86_400_000
    static let longestStatus = 1_024

    init(
        database: Database, notifier: Notifier, surroundings: Surroundings, serial: EphemeralSerial, isEnabled: Bool,
        ephemera: OutgoingEphemera, logger: Logger
    ) {
        self.ephemera = ephemera
        self.database = database
        self.notifier = notifier
        self.surroundings = surroundings
        self.serial = serial
        self.isEnabled = isEnabled
        self.logger = logger
    }

    // MARK: - Changes

    /// Sets a user's own presence (`PUT /presence/{userId}/status`).
    public func set(_ state: State, status: String?, for requester: Requester) async throws {
        if let status, status.utf8.count > Self.longestStatus {
            throw MatrixError.invalidParam("“status_msg” is longer than \(Self.longestStatus) bytes.")
        }
        guard isEnabled else { return }
        try await load([requester.nid])
        let now = surroundings.now()
        change(requester.nid) { entry in
            entry.devices[requester.deviceID, default: Device(state: state, seen: now)].say(state, now)
            entry.record.status = status.flatMap { $0.isEmpty ? nil : $0 }
            if state == .online { entry.record.lastActiveTS = now }
        }
    }

    /// A device syncs: it is there, as it says (`set_presence`).
    @inline(never) func synced(_ state: State, by requester: Requester) async throws {
        guard isEnabled, state != .offline else { return }
        try await load([requester.nid])
        let now = surroundings.now()
        change(requester.nid) { entry in
            entry.devices[requester.deviceID, default: Device(state: state, seen: now)].say(state, now)
            // Syncing is no activity, but whoever comes back is active.
            if state == .online, entry.record.state == .offline { entry.record.lastActiveTS = now }
        }
    }

    /// A sync of a device waits, or does so no longer. For as long as the client has asked for, the device is there.
    func waits(_ isWaiting: Bool, _ requester: Requester) {
        guard isEnabled else { return }
        let now = surroundings.now()
        table.withLock { table in
            guard var device = table.users[requester.nid]?.devices[requester.deviceID] else { return }
            device.waiting = max(0, device.waiting + (isWaiting ? 1 : -1))
            device.seen = now
            table.users[requester.nid]?.devices[requester.deviceID] = device
        }
    }

    /// The user does something: sends, reads, types.
    public func acted(_ requester: Requester) {
        guard isEnabled else { return }
        let now = surroundings.now()
        let isKnown = table.withLock { $0.users[requester.nid] != nil }
        // Who doesn't sync isn't shown as being there because a program sends in their name.
        guard isKnown else { return }
        change(requester.nid) { $0.record.lastActiveTS = now }
    }

    private static let states: [String: State] = [
        "online": .online, "offline": .offline, "unavailable": .unavailable,
    ]

    /// What another server says of one of its users.
    func told(_ state: String, status: String?, of user: UserNID, lastActiveAgo: Int64?) async throws {
        guard isEnabled, let state = PresenceService.states[state] else { return }
        try await load([user])
        let now = surroundings.now()
        table.withLock { table in
            guard var entry = table.users[user] else { return }
            entry.record.state = state
            entry.record.status = status.map { $0.shortened(to: Self.longestStatus) }
            entry.record.lastActiveTS = now - min(max(lastActiveAgo ?? 0, 0), now)
            entry.wasRead = false
            table.users[user] = entry
            table.pending.insert(user)
        }
        plan()
    }

    private func change(_ user: UserNID, _ change: (inout Entry) -> Void) {
        let now = surroundings.now()
        table.withLock { table in
            guard var entry = table.users[user] else { return }
            let before = entry.record
            change(&entry)
            Self.settle(&entry, now)
            entry.wasRead = false
            table.users[user] = entry
            if entry.record.state != before.state || entry.record.status != before.status {
                table.pending.insert(user)
            }
        }
        plan()
    }

    /// What all of a user's devices say together.
    private static func settle(_ entry: inout Entry, _ now: Int64) {
        entry.devices = entry.devices.filter { $0.value.waiting > 0 || now - $0.value.seen <= devicePatience }
        let states = entry.devices.values.map(\.state)
        if states.contains(.online) {
            entry.record.state = now - entry.record.lastActiveTS > idleAfter ? .unavailable : .online
        } else {
            entry.record.state = states.contains(.unavailable) ? .unavailable : .offline
        }
    }

    // MARK: - Telling

    /// Sets the timers that are due: one to tell what has changed, one to find who has gone.
    private func plan() {
        let (flush, sweep) = table.withLock { table -> (Bool, Bool) in
            if table.isClosed { return (false, false) }
            let flush = !table.pending.isEmpty && !table.isFlushPlanned
            let sweep = !table.isSweepPlanned && table.users.values.contains { !$0.devices.isEmpty }
            table.isFlushPlanned = table.isFlushPlanned || flush
            table.isSweepPlanned = table.isSweepPlanned || sweep
            return (flush, sweep)
        }
        if flush { _ = surroundings.after(Self.flushEvery) { [weak self] in self?.flush() } }
        if sweep { _ = surroundings.after(Self.sweepEvery) { [weak self] in self?.sweep() } }
    }

    /// Tells what has changed, one time after another.
    private func flush() {
        table.withLock { table in
            table.isFlushPlanned = false
            guard !table.isClosed, !table.pending.isEmpty else { return }
            let changed = table.pending
            table.pending = []
            table.flushing = Task { [weak self, before = table.flushing] in
                await before?.value
                await self?.tell(changed.sorted())
            }
        }
    }

    private func tell(_ users: [UserNID]) async {
        do {
            try await load(users)
            var rooms: [UserNID: Set<RoomNID>] = [:]
            for user in users {
                let memberships = try await database.read { try await database.memberships(of: user, $0) }
                rooms[user] = Set(memberships.filter { $0.membership == .join }.map(\.room))
            }
            let seenIn = rooms
            var write = Write()
            table.withLock { table in
                for user in users {
                    guard var entry = table.users[user] else { continue }
                    entry.serial = serial.next()
                    entry.rooms = seenIn[user] ?? []
                    table.users[user] = entry
                    table.told.add(user, under: entry.serial, in: entry.rooms)
                    // What devices on another node say is written down there.
                    if !entry.isElsewhere { write.putPresence(entry.record, of: user) }
                }
            }
            var concerned: Set<RoomNID> = []
            for (_, rooms) in seenIn { concerned.formUnion(rooms) }
            notifier.publish(concerned.map { .room($0) } + users.map { .user($0) })
            if !write.isEmpty { try await database.write(write) }
            try await ephemera.tellPresence(of: users) { try await self.content(of: $0) }
        } catch {
            logger.warning("presence was not told", metadata: ["reason": "\(error)"])
        }
    }

    private func sweep() {
        let now = surroundings.now()
        table.withLock { table in
            table.isSweepPlanned = false
            for (user, entry) in table.users where !entry.devices.isEmpty {
                var settled = entry
                Self.settle(&settled, now)
                table.users[user] = settled
                if settled.record.state != entry.record.state { table.pending.insert(user) }
            }
            if table.users.count > Self.mostUsers {
                table.users = table.users.filter { $0.value.record.state != .offline }
            }
        }
        plan()
    }

    /// Another node has written something down.
    func note(_ topics: [Topic]) {
        table.withLock { table in
            for case .presence(let user) in topics {
                // What devices on this node say counts here.
                if table.users[user]?.devices.isEmpty == false { continue }
                table.users[user, default: Entry(record: Self.unknown)].isStale = true
                table.pending.insert(user)
            }
        }
        plan()
    }

    private static let unknown = PresenceRecord(state: .offline, status: nil, lastActiveTS: 0)

    /// Stops telling; what was being written down is.
    func close() async {
        let flushing = table.withLock { table in
            table.isClosed = true
            return table.flushing
        }
        await flushing?.value
    }

    // MARK: - Reading

    /// Reads what is written down of users who aren't in memory, or are differently.
    private func load(_ users: [UserNID]) async throws {
        let missing = table.withLock { table in users.filter { table.users[$0]?.isStale ?? true } }
        if missing.isEmpty { return }
        let records = try await database.presence(of: missing)
        table.withLock { table in
            for user in missing where table.users[user]?.isStale ?? true {
                var record = records[user] ?? Self.unknown
                // What was written down by a process that is no more may be wrong for ever; one that runs renews it.
                if surroundings.now() - record.lastActiveTS > Self.forgottenAfter { record.state = .offline }
                var entry = table.users[user] ?? Entry(record: record)
                entry.record = record
                entry.isStale = false
                entry.wasRead = true
                table.users[user] = entry
            }
        }
    }

    /// The content of a user's `m.presence` event.
    func content(of user: UserNID) async throws -> JSONObject {
        try await load([user])
        return content(table.withLock { $0.users[user]?.record } ?? Self.unknown)
    }

    private func content(_ record: PresenceRecord) -> JSONObject {
        let ago = max(0, surroundings.now() - record.lastActiveTS)
        var content: JSONObject = ["presence": .string(record.state.name)]
        if record.lastActiveTS > 0 { content["last_active_ago"] = .integer(ago) }
        if record.state != .offline {
            content["currently_active"] = .bool(record.state == .online && ago <= Self.activeFor)
        }
        if let status = record.status { content["status_msg"] = .string(status) }
        return content
    }

    /// Users in some rooms whose presence changed after a number; for 0 those who are there.
    func changed(
        since serial: Int64, in rooms: [RoomNID], for own: UserNID
    ) -> [(user: UserNID, content: JSONObject)] {
        guard isEnabled else { return [] }
        let found = table.withLock { table -> [(UserNID, PresenceRecord)] in
            let known = serial == 0 ? nil : table.told.users(since: serial, in: rooms)
            let candidates = (known.map { $0.union([own]) } ?? Set(table.users.keys)).sorted()
            let rooms = known == nil ? Set(rooms) : []
            var found: [(UserNID, PresenceRecord)] = []
            for user in candidates {
                guard let entry = table.users[user], entry.serial > serial,
                    serial > 0 || entry.record.state != .offline,
                    user == own || known != nil || !entry.rooms.isDisjoint(with: rooms)
                else { continue }
                found.append((user, entry.record))
                if found.count == Self.mostTold { break }
            }
            return found
        }
        return found.map { ($0, content($1)) }
    }

    /// Whether there may be something to tell that came after a number.
    func mayHaveChanged(since serial: Int64) -> Bool {
        isEnabled && table.withLock { $0.told.last > serial }
    }

    /// A user's presence, for somebody who may see it (`GET /presence/{userId}/status`).
    ///
    /// - Throws: `M_FORBIDDEN` if they share no room; the same for users that don't exist.
    public func status(of user: UserID, for requester: Requester) async throws -> JSONObject {
        let refused = MatrixError.forbidden("You share no room with \(user).")
        guard let nid = try await database.existingNumber(ofUser: user) else { throw refused }
        if nid != requester.nid {
            let sharing = try await database.read { reader in
                try await self.database.users([nid], sharingRoomsWith: requester.nid, reader)
            }
            guard sharing.contains(nid) else { throw refused }
        }
        return try await content(of: nid)
    }
}

extension PresenceRecord.State {
    public init?(name: String) {
        switch name {
        case "online": self = .online
        case "unavailable": self = .unavailable
        case "offline": self = .offline
        default: return nil
        }
    }

    public var name: String {
        switch self {
        case .online: "online"
        case .unavailable: "unavailable"
        case .offline: "offline"
        }
    }
}
