import MatrixCore

/// Deleting rooms, and old messages of rooms, for good. What is deleted leaves a tombstone of its ID, so that it is not fetched
/// from another server again. A purge is noted in the database and done in batches, so that it goes on after a crash.
public struct Purge: Sendable {
    public let room: RoomNID
    /// Messages before this place are deleted; nil: the whole room.
    public let before: Database.OrderedPlace?

    public init(room: RoomNID, before: Database.OrderedPlace?) {
        self.room = room
        self.before = before
    }
}

extension Database {
    private static let all = Statement("SELECT room_nid, before_depth, before_position FROM purges ORDER BY begun_ts")

    /// The purges that are not finished.
    public func purges() async throws -> [Purge] {
        try await read { reader in
            try await reader.query(Self.all, []) { row in
                Purge(
                    room: RoomNID(row.integer(0)),
                    before: row.isNull(1) ? nil : OrderedPlace(depth: row.integer(1), position: row.integer(2)))
            }
        }
    }

    private static let members = Statement("SELECT user_nid FROM memberships WHERE room_nid = $1")

    /// Begins a purge. A room that is deleted as a whole is out of everybody's sight at once.
    public func begin(_ purge: Purge, at now: Int64) async throws {
        let members = try await read { reader in
            try await reader.query(Self.members, [purge.room.value]) { UserNID($0.integer(0)) }
        }
        var write = Write()
        write.begin(purge, members: members, at: now)
        try await self.write(write)
    }

    private static let someOfRoom = Statement(
        """
        SELECT event_nid, event_key, chain_nid, origin_server_ts, json FROM events
        WHERE room_nid = $1 ORDER BY event_nid LIMIT $2
        """)
    private static let someMessages = Statement(
        """
        SELECT event_nid, event_key, chain_nid, origin_server_ts, json FROM events
        WHERE room_nid = $1 AND position IS NOT NULL AND (order_depth, position) < ($3, $4) AND state_key_nid IS NULL
        ORDER BY order_depth, position LIMIT $2
        """)

    /// Deletes up to `batch` events of a purge.
    ///
    /// - Returns: the numbers of the deleted events; none when the purge is finished.
    public func continuePurge(_ purge: Purge, batch: Int) async throws -> [EventNID] {
        let doomed = try await read { reader in
            let limit = SQLValue.integer(Int64(batch))
            var values = [purge.room.value, limit]
            if let before = purge.before { values += [.integer(before.depth), .integer(before.position)] }
            return try await reader.query(purge.before == nil ? Self.someOfRoom : Self.someMessages, values) {
                (
                    nid: EventNID($0.integer(0)), key: $0.blob(1), chain: $0.optionalInteger(2),
                    timestamp: $0.integer(3), json: try PackedEvent.unpack($0.blob(4))
                )
            }
        }
        var write = Write()
        for event in doomed {
            write.purge(event.nid, key: event.key, chain: event.chain, room: purge.room)
            // Of a whole room the index goes at the end, at once.
            if purge.before != nil {
                write.unindex(
                    event.nid, in: purge.room, timestamp: event.timestamp, try Self.searchWords(of: event.json))
            }
        }
        if doomed.isEmpty { write.finish(purge) }
        try await self.write(write)
        return doomed.map(\.nid)
    }

    private static func searchWords(of json: [UInt8]) throws -> Set<[UInt8]> {
        let event = try JSONDocument(parsing: json).root
        guard let type = event["type"]?.string, let content = event["content"] else { return [] }
        return SearchWords.words(type: type, content: content)
    }

    private static let purged = Statement("SELECT 1 FROM purged_events WHERE event_key = $1")

    /// Whether an event was deleted on purpose. One point read.
    public func isPurged(_ key: [UInt8], _ reader: any Reader) async throws -> Bool {
        try await reader.first(Self.purged, [.blob(key)]) { _ in true } ?? false
    }
}

extension Write {
    private static let note = Statement(
        """
        INSERT INTO purges (room_nid, before_depth, before_position, begun_ts) VALUES ($1, $2, $3, $4)
        ON CONFLICT (room_nid) DO UPDATE SET before_depth = excluded.before_depth,
            before_position = excluded.before_position, begun_ts = excluded.begun_ts
        """)
    /// What connections of sliding sync have told of the room. An answer that is being built may add a row yet, which goes with its
    /// connection.
    private static let deleteTold = Statement(
        """
        DELETE FROM sliding_rooms WHERE room_nid = $2 AND pending IN (0, 1) AND connection_nid IN (
            SELECT connection_nid FROM sliding_connections WHERE user_nid = $1)
        """)
    private static let deleteData = Statement("DELETE FROM account_data WHERE user_nid = $1 AND room_nid = $2")
    private static let tombstone = Statement(
        "INSERT INTO purged_events (event_key, room_nid, event_nid) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
    private static let deleteEvent = Statement("DELETE FROM events WHERE event_nid = $1")
    private static let deleteRedactions = Statement("DELETE FROM redactions WHERE target_key = $1")
    private static let deletePlaces = Statement("DELETE FROM chain_places WHERE chain_nid = $1")
    private static let deleteLinks = Statement("DELETE FROM chain_links WHERE chain_nid = $1")
    private static let finished = Statement("DELETE FROM purges WHERE room_nid = $1")
    /// What makes a room visible, and goes first.
    private static let visible = [
        "memberships", "room_aliases", "published_rooms", "receipts", "room_servers", "notifications", "open_rooms",
        "network_rooms", "search_queue",
        "delayed_events", "sticky_events", "thread_subscriptions",
    ].map { Statement("DELETE FROM \($0) WHERE room_nid = $1") }
    /// What goes last.
    private static let remains = ["search_words", "state_nodes", "room_states", "gaps", "partial_rooms", "rooms"].map {
        Statement("DELETE FROM \($0) WHERE room_nid = $1")
    }

    fileprivate mutating func begin(_ purge: Purge, members: [UserNID], at now: Int64) {
        run(
            Self.note, purge.room.value, .optional(purge.before?.depth), .optional(purge.before?.position),
            .integer(now))
        guard purge.before == nil else { return }
        for member in members {
            run(Self.deleteData, member.value, purge.room.value)
            run(Self.deleteTold, member.value, purge.room.value)
            topics.append(.memberships(member))
        }
        for statement in Self.visible { run(statement, purge.room.value) }
    }

    fileprivate mutating func purge(_ event: EventNID, key: [UInt8], chain: Int64?, room: RoomNID) {
        run(Self.tombstone, .blob(key), room.value, event.value)
        run(Self.deleteEvent, event.value)
        run(Self.deleteRedactions, .blob(key))
        unrelate(event)
        topics.append(.event(event))
        // Chains are of one room each: only a purge of the whole room comes across their events.
        if let chain {
            run(Self.deletePlaces, .integer(chain))
            run(Self.deleteLinks, .integer(chain))
        }
    }

    fileprivate mutating func finish(_ purge: Purge) {
        if purge.before == nil { for statement in Self.remains { run(statement, purge.room.value) } }
        run(Self.finished, purge.room.value)
    }
}
