import MatrixCore

/// What other servers are owed: they are told of events by their positions, so that nothing is written for each of them.
extension Database {
    /// A server that could not be reached.
    public struct FailingDestination: Sendable {
        public let server: ServerNID
        /// What lies behind this position it has not been told.
        public let position: Int64
        /// Milliseconds since 1970.
        public let failingSince: Int64
        public let retry: Int64

        public init(server: ServerNID, position: Int64, failingSince: Int64, retry: Int64) {
            self.server = server
            self.position = position
            self.failingSince = failingSince
            self.retry = retry
        }
    }

    private static let failing = Statement("SELECT server_nid, position, failing_since_ts, retry_ts FROM destinations")

    public func failingDestinations() async throws -> [FailingDestination] {
        try await read { reader in
            try await reader.query(Self.failing, []) {
                FailingDestination(
                    server: ServerNID($0.integer(0)), position: $0.integer(1), failingSince: $0.integer(2),
                    retry: $0.integer(3))
            }
        }
    }

    /// An event that this server tells others of.
    public struct OutgoingEvent: Sendable {
        public let event: EventNID
        public let room: RoomNID
        public let position: Int64

        init(row: any Row) {
            event = EventNID(row.integer(0))
            room = RoomNID(row.integer(1))
            position = row.integer(2)
        }
    }

    private static let outgoing = Statement(
        """
        SELECT event_nid, room_nid, position FROM events
        WHERE position > $1 AND position <= $2 AND (flags & 32) <> 0 ORDER BY position LIMIT $3
        """)

    /// Events that this server tells others of, between two positions, oldest first. One range of one index.
    public func outgoingEvents(after: Int64, upTo: Int64, limit: Int, _ reader: any Reader) async throws
        -> [OutgoingEvent]
    {
        try await reader.query(Self.outgoing, [.integer(after), .integer(upTo), .integer(Int64(limit))]) {
            OutgoingEvent(row: $0)
        }
    }

    private static let newestOutgoing = Statement(
        """
        SELECT event_nid, room_nid, position FROM events
        WHERE room_nid = $1 AND position > $2 AND position <= $3 AND (flags & 32) <> 0
        ORDER BY order_depth DESC, position DESC LIMIT $4
        """)

    /// The newest of those events in each of the rooms.
    public func newestOutgoingEvents(
        in rooms: [RoomNID], after: Int64, upTo: Int64, limit: Int, _ reader: any Reader
    ) async throws -> [OutgoingEvent] {
        try await reader.queryEach(
            Self.newestOutgoing,
            rooms.map { [$0.value, .integer(after), .integer(upTo), .integer(Int64(limit))] }
        ) { OutgoingEvent(row: $1) }
    }

    private static let roomsOf = Statement("SELECT room_nid FROM room_servers WHERE server_nid = $1")

    /// The rooms that a server has joined members in, or had.
    public func rooms(everWithMembersOf server: ServerNID, _ reader: any Reader) async throws -> [RoomNID] {
        try await reader.query(Self.roomsOf, [server.value]) { RoomNID($0.integer(0)) }
    }

    private static let serversSharing = Statement(
        """
        SELECT DISTINCT s.server_nid FROM memberships m JOIN room_servers s ON s.room_nid = m.room_nid AND s.joined > 0
        WHERE m.user_nid = $1 AND m.membership = 1
        """)

    /// The servers with joined members in rooms of a user.
    public func servers(sharingRoomsWith user: UserNID, _ reader: any Reader) async throws -> [ServerNID] {
        try await reader.query(Self.serversSharing, [user.value]) { ServerNID($0.integer(0)) }
    }

    private static let changedLocal = Statement(
        """
        SELECT d.user_nid, d.position FROM device_lists d JOIN accounts a ON a.user_nid = d.user_nid
        WHERE d.position > $1 AND d.position <= $2 ORDER BY d.position LIMIT $3
        """)

    /// Users of this server whose devices have changed between two positions, with the position of the last change, oldest first.
    public func localUsersWithChangedDevices(
        after: Int64, upTo: Int64, limit: Int, _ reader: any Reader
    ) async throws -> [(user: UserNID, position: Int64)] {
        try await reader.query(Self.changedLocal, [.integer(after), .integer(upTo), .integer(Int64(limit))]) {
            (UserNID($0.integer(0)), $0.integer(1))
        }
    }

    /// A message to devices of another server.
    public struct OutgoingToDevice: Sendable {
        public let position: Int64
        public let place: Int64
        /// The content of an `m.direct_to_device` EDU.
        public let content: [UInt8]
    }

    private static let toDevice = Statement(
        """
        SELECT position, place, content FROM outgoing_to_device WHERE server_nid = $1 ORDER BY position, place LIMIT $2
        """)

    public func outgoingToDevice(to server: ServerNID, limit: Int) async throws -> [OutgoingToDevice] {
        try await read { reader in
            try await reader.query(Self.toDevice, [server.value, .integer(Int64(limit))]) {
                OutgoingToDevice(position: $0.integer(0), place: $0.integer(1), content: $0.blob(2))
            }
        }
    }

    private static let awaited = Statement("SELECT DISTINCT server_nid FROM outgoing_to_device")

    /// The servers for whose devices messages wait.
    public func serversAwaitingToDevice() async throws -> [ServerNID] {
        try await read { try await $0.query(Self.awaited, []) { ServerNID($0.integer(0)) } }
    }
}

extension Write {
    private static let putFailing = Statement(
        """
        INSERT INTO destinations (server_nid, position, failing_since_ts, retry_ts) VALUES ($1, $2, $3, $4)
        ON CONFLICT (server_nid) DO UPDATE SET position = excluded.position,
            failing_since_ts = excluded.failing_since_ts, retry_ts = excluded.retry_ts
        """)
    private static let dropFailing = Statement("DELETE FROM destinations WHERE server_nid = $1")
    private static let settle = Statement(
        """
        INSERT INTO settings (name, value) VALUES ('federation_settled', $1)
        ON CONFLICT (name) DO UPDATE SET value = excluded.value
        """)

    public mutating func put(_ destination: Database.FailingDestination) {
        run(
            Self.putFailing, destination.server.value, .integer(destination.position),
            .integer(destination.failingSince), .integer(destination.retry))
    }

    /// The server has got all that it was owed.
    public mutating func dropFailing(_ server: ServerNID) { run(Self.dropFailing, server.value) }

    /// All servers but those that fail have been told everything up to a position.
    public mutating func settleFederation(at position: Int64) {
        run(Self.settle, .blob(Array(String(position).utf8)))
    }

    private static let addToDevice = Statement(
        "INSERT INTO outgoing_to_device (server_nid, position, place, content) VALUES ($1, $2, $3, $4)",
        isIndependent: true)
    private static let dropToDevice = Statement(
        "DELETE FROM outgoing_to_device WHERE server_nid = $1 AND (position, place) <= ($2, $3)")

    /// Keeps a message to devices of another server until that has taken it.
    ///
    /// - Parameter place: tells messages of one write apart.
    public mutating func sendToDevices(of server: ServerNID, position: SQLValue, place: Int64, content: [UInt8]) {
        run(Self.addToDevice, server.value, position, .integer(place), .blob(content))
        topics.append(.destination(server))
    }

    public mutating func dropToDevice(to server: ServerNID, upTo last: Database.OutgoingToDevice) {
        run(Self.dropToDevice, server.value, .integer(last.position), .integer(last.place))
    }
}
