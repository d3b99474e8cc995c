import MatrixCore

/// A user's receipt: the newest event that the user has seen, of a type and, where it has one, in a thread.
public struct StoredReceipt: Sendable {
    public let user: UserNID
    public let type: String
    /// The thread's root, `main`, or empty for a receipt of no thread.
    public let thread: String
    public let eventID: String
    public let timestamp: Int64
    public let position: Int64

    init(_ row: any Row) {
        user = UserNID(row.integer(0))
        type = row.text(1)
        thread = row.text(2)
        eventID = row.text(3)
        timestamp = row.integer(4)
        position = row.integer(5)
    }
}

extension Database {
    private static let since = Statement(
        """
        SELECT user_nid, type, thread, event_id, ts, position FROM receipts
        WHERE room_nid = $1 AND position > $2 AND position <= $3 ORDER BY position
        """)

    /// The receipts of a room that moved between two positions. One range of one index.
    public func receipts(
        in room: RoomNID, after: Int64, upTo: Int64, _ reader: any Reader
    ) async throws -> [StoredReceipt] {
        try await reader.query(Self.since, [room.value, .integer(after), .integer(upTo)], StoredReceipt.init)
    }

    private static let newest = Statement(
        """
        SELECT user_nid, type, thread, event_id, ts, position FROM receipts WHERE room_nid = $1
        ORDER BY position DESC LIMIT $2
        """)

    /// The receipts of a room that moved last. The end of one range of one index.
    public func newestReceipts(
        in room: RoomNID, limit: Int, _ reader: any Reader
    ) async throws -> NewestRows<StoredReceipt> {
        NewestRows(
            try await reader.query(Self.newest, [room.value, .integer(Int64(limit))], StoredReceipt.init),
            limit: limit, position: \.position)
    }

    private static let ofUser = Statement(
        "SELECT user_nid, type, thread, event_id, ts, position FROM receipts WHERE room_nid = $1 AND user_nid = $2")

    /// A user's own receipts in a room. One range of one index.
    public func receipts(in room: RoomNID, of user: UserNID, _ reader: any Reader) async throws -> [StoredReceipt] {
        try await reader.query(Self.ofUser, [room.value, user.value], StoredReceipt.init)
    }
}

extension Write {
    private static let put = Statement(
        """
        INSERT INTO receipts (room_nid, user_nid, type, thread, event_id, ts, position) VALUES ($1, $2, $3, $4, $5, $6, $7)
        ON CONFLICT (room_nid, user_nid, type, thread) DO UPDATE SET event_id = excluded.event_id, ts = excluded.ts,
            position = excluded.position
        """)

    private static let forgetThreads = Statement(
        """
        DELETE FROM receipts WHERE room_nid = $1 AND user_nid = $2 AND type = $3 AND thread <> '' AND thread <> 'main'
        AND position < (
            SELECT position FROM receipts
            WHERE room_nid = $1 AND user_nid = $2 AND type = $3 AND thread <> '' AND thread <> 'main'
            ORDER BY position DESC LIMIT 1 OFFSET $4)
        """)

    /// Moves a receipt.
    ///
    /// - Parameter threads: in how many threads of the room, besides the main timeline, a user's receipts of the type are kept, the
    ///   newest: a thread is whatever somebody says.
    public mutating func putReceipt(
        in room: RoomNID, of user: UserNID, type: String, thread: String, event: EventID, at time: Int64, threads: Int
    ) {
        if !thread.isEmpty, thread != "main" {
            run(Self.forgetThreads, room.value, user.value, .text(type), .integer(Int64(threads) - 2))
        }
        let position = takePosition()
        run(
            Self.put, room.value, user.value, .text(type), .text(thread), .identifier(event.string), .integer(time),
            position)
        // A private receipt is nobody else's business.
        topics.append(.roomOf(room, user))
        if type != "m.read.private" { topics += [.room(room), .receipts(room)] }
    }
}
