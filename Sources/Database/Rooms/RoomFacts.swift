import MatrixCore

/// What rooms are ordered and filtered by in lists, at hand without reading their state.
public struct RoomFacts: Sendable, Equatable {
    /// The position of the newest event.
    public var newest: Int64
    /// The position of the newest event that is activity of people (``bumpingTypes``).
    public var bump: Int64
    /// `type` of the create event.
    public var type: String?
    /// Whether the room's current state has `m.room.encryption`.
    public var isEncrypted: Bool

    public init(newest: Int64 = 0, bump: Int64 = 0, type: String? = nil, isEncrypted: Bool = false) {
        self.newest = newest
        self.bump = bump
        self.type = type
        self.isEncrypted = isEncrypted
    }

    /// Types of events that count as activity (MSC4186, `bump_stamp`).
    public static let bumpingTypes: Set<EventType> = Set(
        [
            "m.room.create", "m.room.message", "m.room.encrypted", "m.sticker", "m.call.invite", "m.poll.start",
            "m.beacon_info",
        ].map { EventType($0) })

    static let columns = "newest_position, bump_position, room_type, is_encrypted"

    /// Reads ``columns`` from one on; nil where they were never filled in.
    init?(row: any Row, at column: Int) {
        guard let newest = row.optionalInteger(column) else { return nil }
        self.init(
            newest: newest, bump: row.integer(column + 1), type: row.optionalText(column + 2),
            isEncrypted: row.flag(column + 3))
    }

    /// The values of the columns that follow from the state.
    var stateValues: [SQLValue] { [type.map { .identifier($0) } ?? .null, .flag(isEncrypted)] }
}

extension Database {
    private static let facts = Statement("SELECT \(RoomFacts.columns) FROM rooms WHERE room_nid = $1")
    private static let factsOfUser = Statement(
        """
        SELECT r.newest_position, r.bump_position, r.room_type, r.is_encrypted, r.room_nid FROM memberships m
        JOIN rooms r ON r.room_nid = m.room_nid WHERE m.user_nid = $1
        """)

    /// The facts of rooms, as far as they are kept. A point read for each.
    public func facts(of rooms: [RoomNID], _ reader: any Reader) async throws -> [RoomNID: RoomFacts] {
        let read = try await reader.queryEach(Self.facts, rooms.map { [$0.value] }) {
            (rooms[$0], RoomFacts(row: $1, at: 0))
        }
        return Dictionary(read.compactMap { pair in pair.1.map { (pair.0, $0) } }) { $1 }
    }

    /// The facts of all rooms that a user has to do with, as far as they are kept. One query.
    public func facts(ofRoomsOf user: UserNID, _ reader: any Reader) async throws -> [RoomNID: RoomFacts] {
        let read = try await reader.query(Self.factsOfUser, [user.value]) {
            (RoomNID($0.integer(4)), RoomFacts(row: $0, at: 0))
        }
        return Dictionary(read.compactMap { pair in pair.1.map { (pair.0, $0) } }) { $1 }
    }

    private static let directRooms = Statement("SELECT room_nid FROM rooms WHERE room_id = $1")

    /// The numbers of those of the rooms that this server knows. A point read for each.
    public func existingNumbers(ofRooms rooms: [RoomID], _ reader: any Reader) async throws -> [RoomNID] {
        try await reader.queryEach(Self.directRooms, rooms.map { [.identifier($0.string)] }) { _, row in
            RoomNID(row.integer(0))
        }
    }
}
