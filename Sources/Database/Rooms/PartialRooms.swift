import MatrixCore

/// A room that this server has joined without being told of all its members (MSC3706).
public struct PartialRoom: Sendable {
    public let room: RoomNID
    /// The server by which it was joined.
    public let via: ServerName
    /// The servers that are in the room, as that one says.
    public let servers: [ServerNID]
    /// When it was joined, in milliseconds since 1970.
    public let since: Int64

    public init(room: RoomNID, via: ServerName, servers: [ServerNID], since: Int64) {
        self.room = room
        self.via = via
        self.servers = servers
        self.since = since
    }
}

extension Database {
    private static let all = Statement("SELECT room_nid, via, servers, since_ts FROM partial_rooms ORDER BY room_nid")
    private static let one = Statement("SELECT room_nid, via, servers, since_ts FROM partial_rooms WHERE room_nid = $1")

    private static func partialRoom(_ row: any Row) throws -> PartialRoom {
        PartialRoom(
            room: RoomNID(row.integer(0)), via: ServerName(unchecked: row.text(1)),
            servers: try PackedNumbers.unpack(row.blob(2)).map { ServerNID($0) }, since: row.integer(3))
    }

    /// All rooms of which members are still to be fetched. They are few.
    public func partialRooms() async throws -> [PartialRoom] {
        try await read { try await $0.query(Self.all, [], Self.partialRoom) }
    }

    public func partialRoom(_ room: RoomNID, _ reader: any Reader) async throws -> PartialRoom? {
        try await reader.first(Self.one, [room.value], Self.partialRoom)
    }

    private static let since = Statement(
        """
        SELECT event_nid FROM events WHERE event_nid >= $1 AND room_nid = $2 AND state_before IS NOT NULL
        UNION SELECT event_nid FROM events
            WHERE position > (SELECT position FROM events WHERE event_nid = $1) AND room_nid = $2
        """)

    /// The events of a room from one on that have their place in it: those with higher numbers, and those that were known before they
    /// came into the timeline. Two ranges, as long as what has come on this server since.
    public func placedEvents(of room: RoomNID, from event: EventNID, _ reader: any Reader) async throws -> [EventNID] {
        // Ordered here: for an order of its own SQLite would look through the whole table.
        try await reader.query(Self.since, [event.value, room.value]) { EventNID($0.integer(0)) }.sorted()
    }
}

extension Write {
    private static let put = Statement(
        """
        INSERT INTO partial_rooms (room_nid, via, servers, since_ts) VALUES ($1, $2, $3, $4)
        ON CONFLICT (room_nid) DO UPDATE SET via = excluded.via, servers = excluded.servers, since_ts = excluded.since_ts
        """)
    private static let drop = Statement("DELETE FROM partial_rooms WHERE room_nid = $1")
    private static let restate = Statement(
        """
        UPDATE events SET state_before = $2, state_after = $3, replaces = $4, flags = $5 WHERE event_nid = $1
        """)
    private static let hide = Statement("UPDATE events SET position = NULL WHERE event_nid = $1")
    private static let unnotify = Statement("DELETE FROM notifications WHERE room_nid = $1 AND event_nid = $2")

    public mutating func put(_ partial: PartialRoom) {
        run(
            Self.put, partial.room.value, .identifier(partial.via.string),
            .blob(PackedNumbers.pack(partial.servers.map(\.rawValue))), .integer(partial.since))
    }

    public mutating func dropPartial(_ room: RoomNID) { run(Self.drop, room.value) }

    /// Gives an event other states, once more is known of the room.
    public mutating func restate(_ event: StoredEvent) {
        run(
            Self.restate, event.nid.value, .optional(event.stateBefore?.rawValue),
            .optional(event.stateAfter?.rawValue), .optional(event.replaces?.rawValue), .integer(event.flags.rawValue))
        topics.append(.event(event.nid))
    }

    /// An event is not part of the room's history after all, and nobody is notified of it.
    public mutating func hide(_ event: EventNID, in room: RoomNID) {
        run(Self.hide, event.value)
        run(Self.unnotify, room.value, event.value)
    }
}
