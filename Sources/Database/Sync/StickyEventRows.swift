extension Database {
    private static let sticky = Statement(
        """
        SELECT event_nid, position FROM sticky_events WHERE room_nid = $1 AND position > $2 AND position <= $3 AND until_ts > $4
        ORDER BY position, event_nid LIMIT $5
        """)

    /// The events of a room between two positions that are sticky still, oldest first. One range.
    public func stickyEvents(
        in room: RoomNID, after: Int64, upTo: Int64, at now: Int64, limit: Int, _ reader: any Reader
    ) async throws -> [(event: EventNID, position: Int64)] {
        try await reader.query(
            Self.sticky, [room.value, .integer(after), .integer(upTo), .integer(now), .integer(Int64(limit))]
        ) { (EventNID($0.integer(0)), $0.integer(1)) }
    }

    private static let end = Statement("SELECT max(until_ts) FROM sticky_events WHERE room_nid = $1")

    /// Until when any event of a room is sticky; 0 if none is. One range.
    public func endOfStickiness(in room: RoomNID, _ reader: any Reader) async throws -> Int64 {
        try await reader.first(Self.end, [room.value]) { $0.integer(0) } ?? 0
    }

    private static let rooms = Statement("SELECT DISTINCT room_nid FROM sticky_events WHERE until_ts > $1")

    /// The rooms that have sticky events at a time. One range of one index.
    public func roomsWithStickyEvents(at now: Int64, _ reader: any Reader) async throws -> Set<RoomNID> {
        Set(try await reader.query(Self.rooms, [.integer(now)]) { RoomNID($0.integer(0)) })
    }
}

extension Write {
    private static let insertSticky = Statement(
        "INSERT INTO sticky_events (room_nid, position, event_nid, until_ts) VALUES ($1, $2, $3, $4)")
    private static let deleteExpired = Statement("DELETE FROM sticky_events WHERE room_nid = $1 AND until_ts <= $2")

    /// Notes that an event is sticky until a time, and forgets those of the room that aren't any more.
    public mutating func stick(_ event: EventNID, in room: RoomNID, position: SQLValue, until: Int64, now: Int64) {
        run(Self.deleteExpired, room.value, .integer(now))
        run(Self.insertSticky, room.value, position, event.value, .integer(until))
    }
}
