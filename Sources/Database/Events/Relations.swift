import MatrixCore

/// Events that refer to others: edits, reactions, threads, references (Client-Server API, "Forming relationships between
/// events"). Kept by the key of the event they refer to, which need not be known.
extension Write {
    private static let insertRelation = Statement(
        """
        INSERT INTO relations (parent_key, rel_type, order_depth, event_nid, room_nid) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT DO NOTHING
        """)
    private static let flagParent = Statement("UPDATE events SET flags = flags | 8 WHERE event_key = $1")

    /// Notes that an event refers to another one.
    public mutating func relate(_ child: StoredEvent, to parent: EventID, type: String) {
        let key = SQLValue.blob(StoredEvent.key(of: parent))
        run(
            Self.insertRelation, key, .identifier(type), .integer(child.orderDepth), child.nid.value, child.room.value)
        run(Self.flagParent, key)
    }

    private static let flagIfParent = Statement(
        """
        UPDATE events SET flags = flags | 8 WHERE event_key = $1
            AND EXISTS (SELECT 1 FROM relations WHERE parent_key = $1)
        """)

    /// Notes on an event that has come after events which refer to it that there are some.
    public mutating func flagIfParent(_ event: EventID) { run(Self.flagIfParent, .blob(StoredEvent.key(of: event))) }

    private static let deleteRelation = Statement("DELETE FROM relations WHERE event_nid = $1")

    /// Forgets what an event referred to: it was redacted.
    public mutating func unrelate(_ child: EventNID) { run(Self.deleteRelation, child.value) }
}

extension Database {
    /// The part of the children of an event that is shown with it.
    public struct RelationSummary: Sendable {
        /// The newest edit by the event's own sender.
        public var edit: EventNID?
        /// The newest event of the thread, and how many there are.
        public var thread: (latest: EventNID, count: Int, participated: Bool)?
        public var references: [EventID] = []

        public init() {}
    }

    // Relations are those of one room: an event of another one that names the parent says nothing about it.
    private static let edits = Statement(
        """
        SELECT e.event_nid, e.json, e.origin_server_ts, e.event_id FROM relations r JOIN events e ON e.event_nid = r.event_nid
        WHERE r.parent_key = $1 AND r.rel_type = $2 AND e.sender_nid = $3 AND e.type_nid = $4 AND e.position IS NOT NULL
            AND r.room_nid = $5 AND e.state_key_nid IS NULL
        ORDER BY e.origin_server_ts DESC LIMIT 10
        """)
    private static let latestOfType = Statement(
        """
        SELECT event_nid FROM relations WHERE parent_key = $1 AND rel_type = $2 AND room_nid = $3
        ORDER BY order_depth DESC LIMIT 1
        """)
    private static let countOfType = Statement(
        "SELECT count(*) FROM relations WHERE parent_key = $1 AND rel_type = $2 AND room_nid = $3")
    private static let participates = Statement(
        """
        SELECT 1 FROM relations r JOIN events e ON e.event_nid = r.event_nid
        WHERE r.parent_key = $1 AND r.rel_type = $2 AND e.sender_nid = $3 AND r.room_nid = $4 LIMIT 1
        """)
    private static let referring = Statement(
        """
        SELECT e.event_id FROM relations r JOIN events e ON e.event_nid = r.event_nid
        WHERE r.parent_key = $1 AND r.rel_type = $2 AND r.room_nid = $3 ORDER BY r.order_depth LIMIT 100
        """)

    /// What is shown of an event's children with it. Five short reads, and none for events without children.
    public func relationSummary(
        of event: StoredEvent, for user: UserNID, _ reader: any Reader
    ) async throws -> RelationSummary? {
        guard event.flags.contains(.hasRelations) else { return nil }
        let key = SQLValue.blob(StoredEvent.key(of: event.eventID))
        var summary = RelationSummary()
        summary.edit = try await latestEdit(of: event, key, reader)
        let room = event.room.value
        let thread = SQLValue.identifier("m.thread")
        if let latest = try await reader.first(Self.latestOfType, [key, thread, room], { EventNID($0.integer(0)) }) {
            let count = try await reader.first(Self.countOfType, [key, thread, room]) { Int($0.integer(0)) } ?? 0
            let participates =
                try await reader.first(Self.participates, [key, thread, user.value, room]) { _ in true }
                ?? (event.sender == user)
            summary.thread = (latest, count, participates)
        }
        summary.references = try await reader.query(Self.referring, [key, .identifier("m.reference"), room]) {
            PackedEventID.unpack($0.blob(0))
        }
        return summary
    }

    private func latestEdit(of event: StoredEvent, _ key: SQLValue, _ reader: any Reader) async throws -> EventNID? {
        guard event.mayBeEdited else { return nil }
        let edits = try await reader.query(
            Self.edits, [key, .identifier("m.replace"), event.sender.value, event.type.value, event.room.value]
        ) {
            (
                nid: EventNID($0.integer(0)), json: try PackedEvent.unpack($0.blob(1)), timestamp: $0.integer(2),
                eventID: PackedEventID.unpack($0.blob(3))
            )
        }
        // Of those of the same time the last by its ID.
        return edits.sorted { ($1.timestamp, $1.eventID) < ($0.timestamp, $0.eventID) }
            .first { StoredEvent.isEdit($0.json) }?.nid
    }

    private static let childrenBackwards = Statement(
        """
        SELECT e.event_nid, r.rel_type FROM relations r JOIN events e ON e.event_nid = r.event_nid
        WHERE r.parent_key = $1 AND e.position IS NOT NULL AND (e.order_depth, e.position) <= ($2, $3)
            AND r.room_nid = $5
        ORDER BY e.order_depth DESC, e.position DESC LIMIT $4
        """)
    private static let childrenForwards = Statement(
        """
        SELECT e.event_nid, r.rel_type FROM relations r JOIN events e ON e.event_nid = r.event_nid
        WHERE r.parent_key = $1 AND e.position IS NOT NULL AND (e.order_depth, e.position) > ($2, $3)
            AND r.room_nid = $5
        ORDER BY e.order_depth, e.position LIMIT $4
        """)

    /// The events of a room that refer to an event, from a place on in either direction.
    public func children(
        of parent: EventID, in room: RoomNID, from place: OrderedPlace, backwards: Bool, limit: Int,
        _ reader: any Reader
    ) async throws -> [(event: EventNID, type: String)] {
        try await reader.query(
            backwards ? Self.childrenBackwards : Self.childrenForwards,
            [
                .blob(StoredEvent.key(of: parent)), .integer(place.depth), .integer(place.position),
                .integer(Int64(limit)), room.value,
            ]
        ) { (EventNID($0.integer(0)), $0.text(1)) }
    }

    private static let threadRoots = Statement(
        """
        SELECT e.event_nid, max(r.order_depth) AS latest FROM relations r JOIN events e ON e.event_key = r.parent_key
        WHERE r.room_nid = $1 AND e.room_nid = r.room_nid AND r.rel_type = $2 GROUP BY e.event_nid HAVING max(r.order_depth) < $3
        ORDER BY latest DESC LIMIT $4
        """)

    /// The roots of a room's threads, that with the newest event first, and the order depth of that.
    public func threads(
        in room: RoomNID, before depth: Int64, limit: Int, _ reader: any Reader
    ) async throws -> [(root: EventNID, latest: Int64)] {
        try await reader.query(
            Self.threadRoots, [room.value, .identifier("m.thread"), .integer(depth), .integer(Int64(limit))]
        ) { (EventNID($0.integer(0)), $0.integer(1)) }
    }
}

extension StoredEvent {
    /// Whether an event can have a replacement (Client-Server API, "Validity of replacement events"): no state, and none that is a
    /// replacement itself.
    public var mayBeEdited: Bool {
        guard stateKey == nil, let content = try? JSONDocument(parsing: json).root["content"] else { return false }
        return content["m.relates_to"]?["rel_type"]?.isString("m.replace") != true
    }

    /// Whether a replacement says what is to stand there; an encrypted one says so within.
    public var isEdit: Bool { Self.isEdit(json) }

    static func isEdit(_ json: [UInt8]) -> Bool {
        guard let event = try? JSONDocument(parsing: json).root else { return false }
        return event["type"]?.isString("m.room.encrypted") == true
            || event["content"]?["m.new_content"]?.isObject == true
    }
}
