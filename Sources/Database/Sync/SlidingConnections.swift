/// A connection of sliding sync as the database keeps it.
public struct StoredSlidingConnection: Sendable {
    public let nid: Int64
    public let connID: String
    /// The position (a number of its own, drawn by chance) up to which the client has certainly got everything.
    public let generation: Int64
    /// The position behind the last answer, which the client may have got; 0 if there is none.
    public let pending: Int64
    public let configs: [UInt8]
    /// When it was written last, in milliseconds since 1970.
    public let usedAt: Int64

    public init(nid: Int64, connID: String, generation: Int64, pending: Int64, configs: [UInt8], usedAt: Int64) {
        self.nid = nid
        self.connID = connID
        self.generation = generation
        self.pending = pending
        self.configs = configs
        self.usedAt = usedAt
    }
}

/// What a connection has told of a room.
public struct SentRoom: Sendable, Equatable {
    public struct Flags: OptionSet, Sendable {
        public let rawValue: Int64
        public init(rawValue: Int64) { self.rawValue = rawValue }

        /// It was told as a room that the user is in.
        public static let joined = Flags(rawValue: 1)
        /// It was told in its stripped form.
        public static let stripped = Flags(rawValue: 2)
        /// It was told that it is a direct chat.
        public static let direct = Flags(rawValue: 4)
        /// Receipts were told.
        public static let receipts = Flags(rawValue: 8)
    }

    /// Everything up to here is told.
    public var position: Int64
    /// How many of the newest events up to there the client has got, without a gap between them; ``all`` if it has all.
    public var told: Int64
    /// The number of the room config by which it was told.
    public var config: Int64
    public var flags: Flags

    public static let all = Int64(Int32.max)

    public init(position: Int64, told: Int64, config: Int64, flags: Flags) {
        self.position = position
        self.told = told
        self.config = config
        self.flags = flags
    }
}

extension Database {
    private static let one = Statement(
        """
        SELECT connection_nid, conn_id, generation, pending, configs, used_ts FROM sliding_connections
        WHERE connection_nid = $1 AND user_nid = $2 AND device_id = $3
        """)

    /// A connection of a device. One point read.
    public func slidingConnection(
        _ nid: Int64, of user: UserNID, deviceID: String, _ reader: any Reader
    ) async throws -> StoredSlidingConnection? {
        try await reader.first(Self.one, [.integer(nid), user.value, .text(deviceID)]) { row in
            StoredSlidingConnection(
                nid: row.integer(0), connID: row.text(1), generation: row.integer(2), pending: row.integer(3),
                configs: row.blob(4), usedAt: row.integer(5))
        }
    }

    private static let rooms = Statement(
        "SELECT pending, room_nid, position, told, config, flags FROM sliding_rooms WHERE connection_nid = $1")

    /// What a connection has told, the pending part apart. One range.
    public func slidingRooms(
        of connection: Int64, _ reader: any Reader
    ) async throws -> (certain: [RoomNID: SentRoom], pending: [RoomNID: SentRoom]) {
        var certain: [RoomNID: SentRoom] = [:]
        var pending: [RoomNID: SentRoom] = [:]
        let rows = try await reader.query(Self.rooms, [.integer(connection)]) { row in
            (
                isPending: row.flag(0), room: RoomNID(row.integer(1)),
                sent: SentRoom(
                    position: row.integer(2), told: row.integer(3), config: row.integer(4),
                    flags: .init(rawValue: row.integer(5)))
            )
        }
        for row in rows { if row.isPending { pending[row.room] = row.sent } else { certain[row.room] = row.sent } }
        return (certain, pending)
    }
}

extension Write {
    private static let named = "connection_nid FROM sliding_connections WHERE user_nid = $1 AND device_id = $2"
    private static let deleteRoomsOfName = Statement(
        "DELETE FROM sliding_rooms WHERE connection_nid IN (SELECT \(named) AND conn_id = $3)")
    private static let deleteName = Statement(
        "DELETE FROM sliding_connections WHERE user_nid = $1 AND device_id = $2 AND conn_id = $3")
    private static let oldest = "SELECT \(named) ORDER BY used_ts DESC, connection_nid LIMIT 1000 OFFSET $3"
    private static let deleteRoomsBeyond = Statement("DELETE FROM sliding_rooms WHERE connection_nid IN (\(oldest))")
    private static let deleteBeyond = Statement("DELETE FROM sliding_connections WHERE connection_nid IN (\(oldest))")
    private static let unused =
        "SELECT connection_nid FROM sliding_connections WHERE used_ts < $1 ORDER BY used_ts LIMIT $2"
    private static let deleteRoomsUnused = Statement("DELETE FROM sliding_rooms WHERE connection_nid IN (\(unused))")
    private static let deleteUnused = Statement("DELETE FROM sliding_connections WHERE connection_nid IN (\(unused))")
    private static let insert = Statement(
        """
        INSERT INTO sliding_connections
            (connection_nid, user_nid, device_id, conn_id, generation, pending, configs, used_ts)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
        """)

    /// Begins a connection in place of the one of this name, of those that the device has too many, and of some that nobody
    /// has used for long.
    public mutating func begin(
        _ connection: StoredSlidingConnection, of user: UserNID, deviceID: String, most: Int, unusedSince: Int64
    ) {
        let device = [user.value, SQLValue.text(deviceID)]
        run(Self.deleteRoomsOfName, device + [.text(connection.connID)])
        run(Self.deleteName, device + [.text(connection.connID)])
        run(Self.deleteRoomsBeyond, device + [.integer(Int64(most - 1))])
        run(Self.deleteBeyond, device + [.integer(Int64(most - 1))])
        run(Self.deleteRoomsUnused, .integer(unusedSince), .integer(20))
        run(Self.deleteUnused, .integer(unusedSince), .integer(20))
        run(
            Self.insert, .integer(connection.nid), user.value, .text(deviceID), .text(connection.connID),
            .integer(connection.generation), .integer(connection.pending), .blob(connection.configs),
            .integer(connection.usedAt))
    }

    private static let move = Statement(
        """
        UPDATE sliding_connections SET generation = $2, pending = $3, configs = $4, used_ts = $5
        WHERE connection_nid = $1 AND generation = $6 AND pending = $7
        """)
    private static let deleteOutdated = Statement(
        """
        DELETE FROM sliding_rooms WHERE connection_nid = $1 AND pending = 0 AND room_nid IN (
            SELECT room_nid FROM sliding_rooms WHERE connection_nid = $1 AND pending = 1)
        """)
    private static let confirm = Statement(
        "UPDATE sliding_rooms SET pending = 0 WHERE connection_nid = $1 AND pending = 1")
    private static let dropPending = Statement("DELETE FROM sliding_rooms WHERE connection_nid = $1 AND pending = 1")

    /// Moves a connection on from what it was read as; fails as a conflict if another request was faster.
    ///
    /// - Parameter confirms: whether the client has got what was pending; else it is forgotten.
    public mutating func move(
        _ connection: StoredSlidingConnection, from before: StoredSlidingConnection, confirms: Bool
    ) {
        expect(
            1, otherwise: "the connection has moved on", Self.move, .integer(connection.nid),
            .integer(connection.generation), .integer(connection.pending), .blob(connection.configs),
            .integer(connection.usedAt), .integer(before.generation), .integer(before.pending))
        if confirms {
            run(Self.deleteOutdated, .integer(connection.nid))
            run(Self.confirm, .integer(connection.nid))
        } else {
            run(Self.dropPending, .integer(connection.nid))
        }
    }

    private static let insertRoom = Statement(
        """
        INSERT INTO sliding_rooms (connection_nid, pending, room_nid, position, told, config, flags)
        VALUES ($1, 1, $2, $3, $4, $5, $6)
        """)

    /// Notes what is told of a room, pending until the client comes back.
    public mutating func note(_ sent: SentRoom, of room: RoomNID, on connection: Int64) {
        run(
            Self.insertRoom, .integer(connection), room.value, .integer(sent.position), .integer(sent.told),
            .integer(sent.config), .integer(sent.flags.rawValue))
    }

    private static let deleteRoomsOfDevice = Statement(
        "DELETE FROM sliding_rooms WHERE connection_nid IN (SELECT \(named))")
    private static let deleteOfDevice = Statement(
        "DELETE FROM sliding_connections WHERE user_nid = $1 AND device_id = $2")
    private static let deleteRoomsOfUser = Statement(
        """
        DELETE FROM sliding_rooms WHERE connection_nid IN (
            SELECT connection_nid FROM sliding_connections WHERE user_nid = $1)
        """)
    private static let deleteOfUser = Statement("DELETE FROM sliding_connections WHERE user_nid = $1")

    /// Ends the connections of a device.
    mutating func endSlidingConnections(of deviceID: String, of user: UserNID) {
        run(Self.deleteRoomsOfDevice, user.value, .text(deviceID))
        run(Self.deleteOfDevice, user.value, .text(deviceID))
    }

    /// Ends the connections of all of a user's devices.
    mutating func endSlidingConnections(of user: UserNID) {
        run(Self.deleteRoomsOfUser, user.value)
        run(Self.deleteOfUser, user.value)
    }
}
