import MatrixCore

/// A stretch of a room's history that this server lacks: right before an event that it has.
public struct Gap: Sendable {
    public let room: RoomNID
    /// The event behind the gap.
    public let before: EventNID
    /// The events that it refers to and this server doesn't have.
    public let missing: [EventID]

    public init(room: RoomNID, before: EventNID, missing: [EventID]) {
        self.room = room
        self.before = before
        self.missing = missing
    }
}

extension Database {
    private static let among = Statement("SELECT missing FROM gaps WHERE room_nid = $1 AND event_nid = $2")

    /// The gaps right before any of these events. A point read for each.
    public func gaps(before events: [StoredEvent], _ reader: any Reader) async throws -> [Gap] {
        try await reader.queryEach(Self.among, events.map { [$0.room.value, $0.nid.value] }) { index, row in
            let missing = row.text(0).split(separator: "\n").map { EventID(unchecked: String($0)) }
            return Gap(room: events[index].room, before: events[index].nid, missing: missing)
        }
    }

    private static let allIn = Statement("SELECT event_nid, missing FROM gaps WHERE room_nid = $1")

    /// An event that is here and refers to one that isn't.
    public func event(upon missing: EventID, in room: RoomNID, _ reader: any Reader) async throws -> EventNID? {
        let id = missing.string.utf8
        return try await reader.query(Self.allIn, [room.value]) { row in
            row.text(1).utf8.split(separator: UInt8(ascii: "\n")).contains { $0.elementsEqual(id) }
                ? EventNID(row.integer(0)) : nil
        }.lazy.compactMap(\.self).first
    }

    private static let anyIn = Statement("SELECT 1 FROM gaps WHERE room_nid = $1 LIMIT 1")

    /// Whether this server lacks any of a room's history between what it has.
    public func hasGaps(in room: RoomNID, _ reader: any Reader) async throws -> Bool {
        try await reader.first(Self.anyIn, [room.value]) { _ in true } ?? false
    }

    /// The same, asked by itself.
    public func hasGaps(in room: RoomNID) async throws -> Bool {
        try await readOnce { try await hasGaps(in: room, $0) }
    }

    /// Positions for events that are fetched from before what is known: the first of `count` consecutive ones, from which they go
    /// *down*. The event that is nearest to what is known gets the first, the oldest the last; all get the order depth of
    /// the event behind the gap. So they stand right before it, whatever has been fetched before or comes later.
    public func newBackfillPositions(_ count: Int) async throws -> Int64 {
        -(try await backfillNumbers.take(Int64(count), engine))
    }
}

extension Write {
    private static let put = Statement(
        """
        INSERT INTO gaps (room_nid, event_nid, missing) VALUES ($1, $2, $3)
        ON CONFLICT (room_nid, event_nid) DO UPDATE SET missing = excluded.missing
        """)
    private static let close = Statement("DELETE FROM gaps WHERE room_nid = $1 AND event_nid = $2")

    /// Notes a gap. Event IDs hold no line breaks.
    public mutating func put(_ gap: Gap) {
        run(
            Self.put, gap.room.value, gap.before.value, .identifier(gap.missing.map(\.string).joined(separator: "\n")))
    }

    /// Notes that what was missing before an event is there now.
    public mutating func closeGap(before event: EventNID, in room: RoomNID) {
        run(Self.close, room.value, event.value)
    }
}
