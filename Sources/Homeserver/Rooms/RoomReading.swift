import Database
import MatrixCore

/// Reading rooms: state, members, messages, single events.
public final class RoomReading: Sendable {
    let rooms: RoomRegistry
    let events: ClientEvents
    let missing: MissingEvents
    private let partialRooms: PartialRooms
    var context: RoomContext { rooms.context }
    var database: Database { context.database }

    init(rooms: RoomRegistry, missing: MissingEvents, partialRooms: PartialRooms) {
        self.rooms = rooms
        self.partialRooms = partialRooms
        self.missing = missing
        events = ClientEvents(context: rooms.context)
    }

    private func tree(_ room: Room) -> StateTree { StateTree(rows: database.stateRows, room: room.nid) }

    /// The state that the requester sees: the current one, or that at the time of leaving.
    func visibleState(_ room: Room, _ access: RoomAccess, _ reader: any Reader) async throws -> StateNID {
        guard let leftAt = access.leftAt else { return room.record.state }
        return try await database.state(of: room.nid, at: leftAt, reader)
    }

    /// What the requester may see of a room.
    func visibility(
        _ room: Room, _ access: RoomAccess, _ requester: Requester, _ reader: any Reader
    ) async throws -> EventVisibility {
        try await EventVisibility(
            context, room: room, user: requester.userID, nid: requester.nid, access: access, reader: reader)
    }

    private func client(_ requester: Requester) -> ClientEvents.Audience {
        ClientEvents.Audience(requester, now: context.surroundings.now())
    }

    /// A room that the requester may read, once all its members are known.
    private func readableWhole(_ roomID: RoomID, _ requester: Requester) async throws -> (Room, RoomAccess) {
        let (room, access) = try await rooms.readable(roomID, by: requester)
        if room.record.partialJoin == nil || !access.isMember { return (room, access) }
        try await partialRooms.whole(room)
        return try await rooms.readable(roomID, by: requester)
    }

    /// Whether a user may be a member without that being known here yet.
    private func isUnsure(of key: StateKey, in room: Room) async throws -> Bool {
        guard room.record.partialJoin != nil else { return false }
        guard let number = try await database.existingNumber(ofStateKey: key) else { return true }
        return try await database.read { reader in
            try await self.tree(room).event(for: number, in: room.record.state, reader) == nil
        }
    }

    // MARK: - State

    /// All state events, as an encoded JSON array (`GET /rooms/{roomId}/state`).
    public func state(of roomID: RoomID, for requester: Requester) async throws -> [UInt8] {
        let (room, access) = try await readableWhole(roomID, requester)
        return try await database.read { reader in
            let state = try await self.visibleState(room, access, reader)
            let entries = try await self.tree(room).entries(in: state, reader)
            return try await self.encode(entries.map(\.event), room, access, requester, reader)
        }
    }

    private func encode(
        _ numbers: [EventNID], _ room: Room, _ access: RoomAccess, _ requester: Requester, _ reader: any Reader
    ) async throws -> [UInt8] {
        var visibility = try await visibility(room, access, requester, reader)
        let page = try await events.page(
            try await database.events(numbers, reader), for: requester.nid, seenBy: &visibility, reader)
        var writer = JSONWriter(capacity: 600 * numbers.count + 16)
        writer.beginArray()
        for event in page.events {
            try events.write(event, of: page, version: room.version, for: client(requester), into: &writer)
        }
        writer.endArray()
        return writer.bytes
    }

    /// The content of a state event, or the whole event (`GET /rooms/{roomId}/state/{eventType}/{stateKey}`).
    ///
    /// - Throws: `M_NOT_FOUND` if there is no such state.
    public func state(
        of roomID: RoomID, key: StateKey, wholeEvent: Bool, for requester: Requester
    ) async throws -> [UInt8] {
        let (room, access) = try await rooms.readable(roomID, by: requester)
        if key.type == "m.room.member", try await isUnsure(of: key, in: room) { try await partialRooms.whole(room) }
        let none = MatrixError.notFound("The room has no state of this type and key.")
        guard let number = try await database.existingNumber(ofStateKey: key) else { throw none }
        return try await database.read { reader in
            let state = try await self.visibleState(room, access, reader)
            guard let nid = try await self.tree(room).event(for: number, in: state, reader),
                let stored = try await self.database.events([nid], reader).first
            else { throw none }
            if wholeEvent {
                var visibility = try await self.visibility(room, access, requester, reader)
                let page = try await self.events.page(
                    [stored], for: requester.nid, seenBy: &visibility, reader)
                var writer = JSONWriter()
                try self.events.write(
                    stored, of: page, version: room.version, for: self.client(requester), into: &writer)
                return writer.bytes
            }
            let event = try self.context.parse(stored, room.version)
            return Array((stored.redactedBy == nil ? event : event.redacted()).content.raw)
        }
    }

    // MARK: - Members

    /// Which member events are wanted.
    public struct MemberFilter: Sendable {
        public var membership: String?
        public var notMembership: String?
        /// A token of `/sync` or `/messages`: as of then.
        public var at: String?

        public init(membership: String?, notMembership: String?, at: String?) {
            self.membership = membership
            self.notMembership = notMembership
            self.at = at
        }

        var admitsAll: Bool { membership == nil && notMembership == nil }

        /// Both together are an “or”: either it is the one, or it is not the other.
        func admits(_ membership: String) -> Bool {
            switch (self.membership, notMembership) {
            case (nil, nil): true
            case (let wanted?, nil): membership == wanted
            case (nil, let unwanted?): membership != unwanted
            case (let wanted?, let unwanted?): membership == wanted || membership != unwanted
            }
        }
    }

    /// Member events, as the encoded answer (`GET /rooms/{roomId}/members`).
    public func members(
        of roomID: RoomID, filter: MemberFilter, for requester: Requester
    ) async throws -> [UInt8] {
        let (room, access) = try await readableWhole(roomID, requester)
        let until = try filter.at.map { try PaginationToken.position($0) }
        return try await database.read { reader in
            var visibility = try await self.visibility(room, access, requester, reader)
            var state = try await self.visibleState(room, access, reader)
            if let until, until < access.leftAt ?? .max, try await self.sees(until, in: room, &visibility, reader) {
                state = try await self.database.state(of: room.nid, at: until, reader)
            }
            var chosen = try await self.memberEvents(room, state, reader)
            if !filter.admitsAll {
                chosen = try chosen.filter { stored in
                    let content = try self.context.parse(stored, room.version).content
                    return filter.admits(content["membership"]?.string ?? "")
                }
            }
            let page = try await self.events.page(chosen, for: requester.nid, seenBy: &visibility, reader)
            var writer = JSONWriter(capacity: 600 * chosen.count + 16)
            writer.beginObject()
            writer.key("chunk")
            writer.beginArray()
            for event in page.events {
                try self.events.write(
                    event, of: page, version: room.version, for: self.client(requester), into: &writer)
            }
            writer.endArray()
            writer.endObject()
            return writer.bytes
        }
    }

    /// Whether the requester sees what happened in a room last up to a position: what the members were then is no more than that.
    private func sees(
        _ position: Int64, in room: Room, _ visibility: inout EventVisibility, _ reader: any Reader
    ) async throws -> Bool {
        guard let place = try await database.place(upTo: position, in: room.nid, reader) else { return false }
        let newest = try await database.timeline(of: room.nid, from: place, backwards: true, limit: 1, reader)
        guard let event = try await database.events(newest, reader).first else { return false }
        return try await visibility.allows(event)
    }

    private func memberEvents(_ room: Room, _ state: StateNID, _ reader: any Reader) async throws -> [StoredEvent] {
        let entries = try await tree(room).entries(in: state, reader)
        let memberType = EventType("m.room.member")
        guard let type = try await database.existingNumber(ofType: memberType) else { return [] }
        return try await database.events(entries.map(\.event), reader).filter { $0.type == type }
    }

    /// The joined members with their names and pictures, as the encoded answer (`GET /rooms/{roomId}/joined_members`).
    public func joinedMembers(of roomID: RoomID, for requester: Requester) async throws -> [UInt8] {
        let (room, access) = try await readableWhole(roomID, requester)
        guard access.isMember else { throw MatrixError.forbidden("You are not in this room.") }
        return try await database.read { reader in
            var writer = JSONWriter(capacity: 4096)
            writer.beginObject()
            writer.key("joined")
            writer.beginObject()
            for stored in try await self.memberEvents(room, room.record.state, reader) {
                let event = try self.context.parse(stored, room.version)
                guard Membership(event.content["membership"]) == .join, let user = event.stateKey else { continue }
                writer.key(user)
                writer.beginObject()
                let content = try self.context.shownContent(of: stored, room.version)
                if let name = content["displayname"]?.string {
                    writer.key("display_name")
                    writer.string(name)
                }
                if let avatar = content["avatar_url"]?.string {
                    writer.key("avatar_url")
                    writer.string(avatar)
                }
                writer.endObject()
            }
            writer.endObject()
            writer.endObject()
            return writer.bytes
        }
    }

    /// The rooms that the requester is in (`GET /joined_rooms`).
    public func joinedRooms(of requester: Requester) async throws -> [RoomID] {
        let memberships = try await database.read { try await self.database.memberships(of: requester.nid, $0) }
        var found: [RoomID] = []
        for membership in memberships where membership.membership == .join {
            found.append(try await rooms.room(membership.room).roomID)
        }
        return found
    }

    // MARK: - Events

    /// One event, as an encoded object (`GET /rooms/{roomId}/event/{eventId}`).
    ///
    /// - Throws: `M_NOT_FOUND` also for what the requester may not read: both look the same.
    public func event(_ eventID: EventID, in roomID: RoomID, for requester: Requester) async throws -> [UInt8] {
        let none = MatrixError.notFound("There is no such event, or you may not read it.")
        let (room, access): (Room, RoomAccess)
        do { (room, access) = try await rooms.readable(roomID, by: requester) } catch is MatrixError { throw none }
        guard let stored = try await database.event(eventID), stored.room == room.nid else { throw none }
        return try await database.read { reader in
            var visibility = try await EventVisibility(
                self.context, room: room, user: requester.userID, nid: requester.nid, access: access, reader: reader)
            guard try await visibility.allows(stored) else { throw none }
            let memberships = [stored.nid: try await visibility.membership(at: stored)]
            let page = try await self.events.page(
                [stored], for: requester.nid, memberships: memberships, seenBy: &visibility, reader)
            var writer = JSONWriter()
            try self.events.write(stored, of: page, version: room.version, for: self.client(requester), into: &writer)
            return writer.bytes
        }
    }
}
