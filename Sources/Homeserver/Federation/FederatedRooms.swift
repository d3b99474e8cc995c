import Database
import MatrixCore
import Synchronization

/// What other servers may have to do with rooms: whether this server and they are in them, and who is kept out.
final class FederatedRooms: Sendable {
    let rooms: RoomRegistry
    let ownServer: ServerNID
    var context: RoomContext { rooms.context }
    var database: Database { rooms.database }

    /// A server, and the event with the access control list that it was held against.
    private struct Verdict: Hashable {
        let list: EventNID
        let server: ServerName
    }

    /// Compiled access control lists by their events, in bytes, and what they say of servers: a list may be long, and a server asks about
    /// many things of a room. The lock protects the caches.
    private let lists = Mutex(
        (
            compiled: BoundedCache<EventNID, ServerACL>(capacity: 32 << 20),
            verdicts: BoundedCache<Verdict, Bool>(capacity: 50_000)
        ))

    init(rooms: RoomRegistry) async throws {
        self.rooms = rooms
        ownServer = try await rooms.database.number(ofServer: rooms.context.serverName)
        // Every room is asked for them with every event: what has no number is looked for in the database each time.
        for key in [StateKey.policy, .serverACL] { _ = try await rooms.database.number(ofStateKey: key) }
    }

    /// Whether this server has joined members in the room, and so hears what happens there.
    func isResident(_ room: Room) async throws -> Bool {
        try await database.joinedMembers(of: ownServer, in: room.nid) > 0
    }

    func isIn(_ server: ServerName, _ room: Room) async throws -> Bool {
        let nid = try await database.number(ofServer: server)
        if room.others?.contains(nid) == true { return true }
        // It may have come in a moment ago, by way of another node.
        return try await database.joinedMembers(of: nid, in: room.nid) > 0
    }

    /// The other servers in a room, those with most members first.
    func servers(in room: Room) async throws -> [ServerName] {
        let others = try await rooms.others(in: room)
        let names = try await database.servers(others)
        return others.compactMap { names[$0] }
    }

    /// Servers that have left a room and aren't kept out of it: what they said there last nobody else may have.
    func formerServers(of room: Room, limit: Int) async throws -> [ServerName] {
        let former = try await database.formerServers(of: room.nid, limit: limit)
        var servers: [ServerName] = []
        for name in try await database.servers(former).values.sorted()
        where name != context.serverName {
            if try await allows(name, in: room) { servers.append(name) }
        }
        return servers
    }

    /// The event that holds a key in the room's current state.
    func state(_ key: StateKey, of room: Room) async throws -> Event? {
        try await state(key, of: room, in: room.record.state)
    }

    func state(_ key: StateKey, of room: Room, in state: StateNID) async throws -> Event? {
        guard let number = try await database.existingNumber(ofStateKey: key) else { return nil }
        let stored = try await database.read { reader in
            let tree = StateTree(rows: self.database.stateRows, room: room.nid)
            guard let nid = try await tree.event(for: number, in: state, reader) else { return nil as StoredEvent? }
            return try await self.database.events([nid], reader).first
        }
        return try stored.map { try context.parse($0, room.version) }
    }

    /// Whether the room lets a server take part (Client-Server API, `m.room.server_acl`).
    func allows(_ server: ServerName, in room: Room) async throws -> Bool {
        let key = StateKey("m.room.server_acl")
        guard let number = try await database.existingNumber(ofStateKey: key) else { return true }
        let nid = try await database.read { reader in
            try await StateTree(rows: self.database.stateRows, room: room.nid).event(
                for: number, in: room.record.state, reader)
        }
        guard let nid else { return true }
        let verdict = Verdict(list: nid, server: server)
        let (known, compiled) = lists.withLock { ($0.verdicts[verdict], $0.compiled[nid]) }
        if let known { return known }
        var list = compiled
        if list == nil {
            guard let stored = try await database.events([nid]).first else { return true }
            list = ServerACL(event: try context.parse(stored, room.version))
        }
        guard let list else { return true }
        let isAllowed = list.allows(server)
        lists.withLock { lists in
            if compiled == nil { lists.compiled.insert(list, for: nid, size: list.compiledBytes) }
            lists.verdicts.insert(isAllowed, for: verdict, size: 1)
        }
        return isAllowed
    }

    /// The events with the signature of the room's policy server, if it has one and that signs them.
    func vouchedFor(_ events: [Event], in room: Room) async throws -> [Event] {
        guard let policy = try await policy(of: room) else { return events }
        return await rooms.policies.signed(events, by: policy)
    }

    /// The same for an event of this server that isn't written yet.
    ///
    /// - Throws: why it may not be sent.
    func vouchedFor(_ event: Event, in room: Room) async throws -> Event {
        guard let policy = try await policy(of: room) else { return event }
        return try await rooms.policies.sign(event, by: policy)
    }

    private func policy(of room: Room) async throws -> RoomPolicy? {
        guard let policy = RoomPolicy(event: try await state(.policy, of: room)), try await isIn(policy.server, room)
        else { return nil }
        return policy
    }

    /// The room, for a server that asks about it.
    ///
    /// - Throws: `M_NOT_FOUND` if this server isn't in it, `M_FORBIDDEN` if the room keeps the server out.
    func room(_ roomID: RoomID, for server: ServerName) async throws -> Room {
        guard let room = try await rooms.room(roomID), try await isResident(room) else {
            throw MatrixError.notFound("This server is not in the room.")
        }
        return try await allowed(room, for: server)
    }

    /// - Throws: `M_NOT_FOUND` if there are members that aren't known here yet.
    func checkWhole(_ room: Room) throws {
        guard room.record.partialJoin == nil else {
            throw MatrixError.notFound(
                "This server has just joined the room and doesn't know all of it yet; ask another one.")
        }
    }

    private func allowed(_ room: Room, for server: ServerName) async throws -> Room {
        guard try await allows(server, in: room) else {
            throw MatrixError.forbidden("The room's access control list keeps \(server) out.")
        }
        return room
    }

    /// The same for what was in the room, which may also be asked of a server that has left it: its last events may have come
    /// there without those before them, and nobody else has these. For servers that are in the room, or were before one of the
    /// events that they ask about: whoever was put out has to be able to make sense of that.
    func room(
        _ roomID: RoomID, withMember server: ServerName, before events: [EventID] = []
    ) async throws -> Room {
        guard let known = try await rooms.room(roomID), known.wasEntered else {
            throw MatrixError.notFound("This server is not in the room.")
        }
        let room = try await allowed(known, for: server)
        if try await isIn(server, room) { return room }
        let isLate = try await database.read { reader in
            for stored in try await self.database.events(events, reader).values where stored.room == room.nid {
                guard let state = stored.stateBefore else { continue }
                let memberships = try await self.context.memberships(of: server, in: state, of: room, reader)
                if memberships.contains(.join) { return true }
            }
            return false
        }
        guard isLate else { throw MatrixError.forbidden("\(server) is not in the room.") }
        return room
    }
}

extension RoomContext {
    /// What the users of a server are in a state. Reads the whole of it.
    func memberships(
        of server: ServerName, in state: StateNID, of room: Room, _ reader: any Reader
    ) async throws -> [Membership] {
        let tree = StateTree(rows: database.stateRows, room: room.nid)
        let entries = try await tree.entries(in: state, reader)
        let names = try await database.stateKeys(entries.map(\.key))
        let members = entries.filter { entry in
            guard let key = names[entry.key], key.type == "m.room.member" else { return false }
            return UserID(key.key)?.server == server
        }
        return try await database.events(members.map(\.event), reader).compactMap {
            Membership(try parse($0, room.version).content["membership"])
        }
    }
}
