import MatrixCore

/// What the database knows of a room now.
public struct RoomRecord: Sendable {
    public let nid: RoomNID
    public let roomID: RoomID
    /// The identifier of the room's version. Of a room that this server was never in it is a claim of whoever invited, and gives way
    /// to the version that a join proves.
    public var version: String
    public var state: StateNID
    /// The first row number of the room's state nodes that is not in use.
    public var nextStateRow: Int64
    public var extremities: [EventNID]
    /// The order depth of the newest event.
    public var depth: Int64
    /// Counts changes of the current state.
    public var stateVersion: Int64
    /// Counts changes of the timeline.
    public var timelineVersion: Int64
    /// The event by which this server came into the room, as long as it doesn't know all members (MSC3902).
    public var partialJoin: EventNID?
    /// What lists of rooms go by; nil if it was never filled in, for rooms from before it was kept.
    public var facts: RoomFacts?

    public init(
        nid: RoomNID, roomID: RoomID, version: String, state: StateNID = StateNID(0), nextStateRow: Int64 = 1,
        extremities: [EventNID] = [], depth: Int64 = 0, stateVersion: Int64 = 0, timelineVersion: Int64 = 0,
        partialJoin: EventNID? = nil, facts: RoomFacts? = nil
    ) {
        self.nid = nid
        self.roomID = roomID
        self.version = version
        self.state = state
        self.nextStateRow = nextStateRow
        self.extremities = extremities
        self.depth = depth
        self.stateVersion = stateVersion
        self.timelineVersion = timelineVersion
        self.partialJoin = partialJoin
        self.facts = facts
    }

    static let columns = """
        room_nid, room_id, version, state_nid, next_state_nid, extremities, depth, state_version, timeline_version,
        partial_join, \(RoomFacts.columns)
        """

    init(row: any Row) throws {
        self.init(
            nid: RoomNID(row.integer(0)), roomID: RoomID(unchecked: row.text(1)), version: row.text(2),
            state: StateNID(row.integer(3)), nextStateRow: row.integer(4),
            extremities: try PackedNumbers.unpack(row.blob(5)).map { EventNID($0) }, depth: row.integer(6),
            stateVersion: row.integer(7), timelineVersion: row.integer(8),
            partialJoin: row.optionalInteger(9).map { EventNID($0) }, facts: RoomFacts(row: row, at: 10))
    }
}

extension Database {
    private static let byID = Statement("SELECT \(RoomRecord.columns) FROM rooms WHERE room_id = $1")
    private static let byNumber = Statement("SELECT \(RoomRecord.columns) FROM rooms WHERE room_nid = $1")

    public func room(_ roomID: RoomID) async throws -> RoomRecord? {
        try await readOnce { try await $0.first(Self.byID, [.identifier(roomID.string)]) { try RoomRecord(row: $0) } }
    }

    public func room(_ nid: RoomNID) async throws -> RoomRecord? {
        try await readOnce { try await $0.first(Self.byNumber, [nid.value]) { try RoomRecord(row: $0) } }
    }

    private static let stateAt = Statement(
        "SELECT state_nid FROM room_states WHERE room_nid = $1 AND position <= $2 ORDER BY position DESC LIMIT 1")

    /// What the room's current state was at a position; the empty state before the room was known.
    public func state(of room: RoomNID, at position: Int64, _ reader: any Reader) async throws -> StateNID {
        try await reader.first(Self.stateAt, [room.value, .integer(position)]) { StateNID($0.integer(0)) }
            ?? StateNID(0)
    }

    private static let newestStates = Statement(
        "SELECT state_nid, position FROM room_states WHERE room_nid = $1 ORDER BY position DESC LIMIT $2")

    /// The newest of a room's current states, and from which position on each was it. One range.
    public func newestStates(
        of room: RoomNID, limit: Int, _ reader: any Reader
    ) async throws -> NewestRows<(state: StateNID, position: Int64)> {
        NewestRows(
            try await reader.query(Self.newestStates, [room.value, .integer(Int64(limit))]) {
                (StateNID($0.integer(0)), $0.integer(1))
            }, limit: limit, position: \.position)
    }
}

extension Write {
    private static let insertRoom = Statement(
        """
        INSERT INTO rooms (room_nid, room_id, version, state_nid, next_state_nid, extremities, depth, state_version,
            timeline_version, newest_position, bump_position, partial_join, room_type, is_encrypted)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
        """)

    /// Adds a room; fails as a constraint if it is known already.
    ///
    /// - Parameters:
    ///   - newest: the position of its newest event.
    ///   - bump: the position of the newest event that is activity of people.
    public mutating func insert(_ room: RoomRecord, newest: SQLValue, bump: SQLValue) {
        let facts = room.facts ?? RoomFacts()
        run(
            Self.insertRoom,
            [
                room.nid.value, .identifier(room.roomID.string), .text(room.version), room.state.value,
                .integer(room.nextStateRow), .blob(PackedNumbers.pack(room.extremities.map(\.rawValue))),
                .integer(room.depth), .integer(room.stateVersion), .integer(room.timelineVersion), newest, bump,
                .optional(room.partialJoin?.rawValue),
            ] + facts.stateValues)
    }

    private static let updateRoom = Statement(
        """
        UPDATE rooms SET state_nid = $2, next_state_nid = $3, extremities = $4, depth = $5, state_version = $6,
            timeline_version = $7, turn_until = 0, newest_position = coalesce($12, newest_position),
            bump_position = coalesce($13, bump_position, $12), room_type = $14, is_encrypted = $15, partial_join = $16
        WHERE room_nid = $1 AND state_version = $8 AND timeline_version = $9 AND (turn_until < $10 OR turn = $11)
        """)

    /// Moves a room on from what it was read as. Fails as a conflict if somebody else has moved it meanwhile, or has been
    /// given the next turn.
    ///
    /// - Parameters:
    ///   - node: a name of the process.
    ///   - now: milliseconds since 1970, by the clock that all nodes go by.
    ///   - newest: the position of the newest of the events that are added; null if there are none.
    ///   - bump: the same of those that are activity of people.
    public mutating func update(
        _ room: RoomRecord, readAs before: RoomRecord, by node: String, at now: Int64, newest: SQLValue = .null,
        bump: SQLValue = .null
    ) {
        expect(
            1, otherwise: "room \(room.roomID) has moved on", Self.updateRoom, room.nid.value, room.state.value,
            .integer(room.nextStateRow), .blob(PackedNumbers.pack(room.extremities.map(\.rawValue))),
            .integer(room.depth),
            .integer(room.stateVersion), .integer(room.timelineVersion), .integer(before.stateVersion),
            .integer(before.timelineVersion), .integer(now), .text(node), newest, bump,
            (room.facts?.type).map { .identifier($0) } ?? .null, (room.facts?.isEncrypted).map { .flag($0) } ?? .null,
            .optional(room.partialJoin?.rawValue))
    }

    private static let setVersion = Statement("UPDATE rooms SET version = $2 WHERE room_nid = $1")

    /// Corrects the version of a room that this server was never in.
    public mutating func setVersion(_ version: String, of room: RoomNID) {
        run(Self.setVersion, room.value, .text(version))
    }

    private static let takeTurn = Statement(
        "UPDATE rooms SET turn = $2, turn_until = $3 WHERE room_nid = $1 AND turn_until < $4")

    /// Has everybody else's writes into a room fail until this node has written, or until the turn is over: for a node that
    /// another one is always faster than. Does nothing while somebody else has the turn.
    public mutating func takeTurn(in room: RoomNID, by node: String, at now: Int64, until end: Int64) {
        run(Self.takeTurn, room.value, .text(node), .integer(end), .integer(now))
    }

    private static let insertNodes = Statement(
        "INSERT INTO state_nodes (room_nid, state_nid, nodes) VALUES ($1, $2, $3)", isIndependent: true)
    private static let insertState = Statement(
        "INSERT INTO room_states (room_nid, position, state_nid) VALUES ($1, $2, $3)")

    public mutating func insert(_ change: StateTree.Change, room: RoomNID) {
        for row in change.rows { insert(stateRow: row.number, row.bytes, room: room) }
    }

    /// Adds a row of the room's state tree.
    public mutating func insert(stateRow number: Int64, _ bytes: [UInt8], room: RoomNID) {
        run(Self.insertNodes, room.value, .integer(number), .blob(bytes))
    }

    /// Notes what the room's current state is from a position on.
    public mutating func setState(_ state: StateNID, of room: RoomNID, from position: SQLValue) {
        run(Self.insertState, room.value, position, state.value)
    }
}
