extension Database {
    private static let ofRoom = Statement(
        "SELECT server_nid, joined FROM room_servers WHERE room_nid = $1 AND joined > 0 ORDER BY joined DESC, server_nid"
    )

    /// The servers with joined members in a room, those with most first. One range of one index.
    public func servers(in room: RoomNID, _ reader: any Reader) async throws -> [(server: ServerNID, joined: Int)] {
        try await reader.query(Self.ofRoom, [room.value]) { (ServerNID($0.integer(0)), Int($0.integer(1))) }
    }

    private static let formerOfRoom = Statement(
        "SELECT server_nid FROM room_servers WHERE room_nid = $1 AND joined <= 0 ORDER BY server_nid DESC LIMIT $2")

    /// Servers that had joined members in a room and have none any more. One range of one index.
    public func formerServers(of room: RoomNID, limit: Int) async throws -> [ServerNID] {
        try await readOnce {
            try await $0.query(Self.formerOfRoom, [room.value, .integer(Int64(limit))]) { ServerNID($0.integer(0)) }
        }
    }

    private static let joinedOf = Statement("SELECT joined FROM room_servers WHERE room_nid = $1 AND server_nid = $2")

    /// How many joined members of a server a room has. One point read.
    public func joinedMembers(of server: ServerNID, in room: RoomNID, _ reader: any Reader) async throws -> Int {
        try await reader.first(Self.joinedOf, [room.value, server.value]) { Int($0.integer(0)) } ?? 0
    }

    /// The same, asked by itself.
    public func joinedMembers(of server: ServerNID, in room: RoomNID) async throws -> Int {
        try await readOnce { try await joinedMembers(of: server, in: room, $0) }
    }

    /// Whether a server has or had joined members in a room, as far as is known here. One point read.
    public func hasBeenIn(_ room: RoomNID, server: ServerNID) async throws -> Bool {
        try await readOnce { try await $0.first(Self.joinedOf, [room.value, server.value]) { _ in true } } ?? false
    }

    private static let joined = Statement("SELECT sum(joined) FROM room_servers WHERE room_nid = $1")

    /// How many joined members a room has. One range of one index, as long as the number of its servers.
    public func joinedMembers(of room: RoomNID, _ reader: any Reader) async throws -> Int {
        try await reader.first(Self.joined, [room.value]) { Int($0.integer(0)) } ?? 0
    }

    private static let history = Statement(
        """
        SELECT event_nid FROM events WHERE state_key_nid = $1 AND room_nid = $2 AND position IS NOT NULL
        ORDER BY order_depth, position
        """)

    /// All events that have held a state key of a room, oldest first: of a member's key, the user's membership over time. One
    /// range of one index.
    public func history(of key: StateKeyNID, in room: RoomNID, _ reader: any Reader) async throws -> [EventNID] {
        try await reader.query(Self.history, [key.value, room.value]) { EventNID($0.integer(0)) }
    }
}

extension Write {
    private static let count = Statement(
        """
        INSERT INTO room_servers (room_nid, server_nid, joined) VALUES ($1, $2, $3)
        ON CONFLICT (room_nid, server_nid) DO UPDATE SET joined = room_servers.joined + excluded.joined
        """)

    /// Counts so many more (or fewer) joined members of a server.
    public mutating func countJoined(_ difference: Int64, of server: ServerNID, in room: RoomNID) {
        run(Self.count, room.value, server.value, .integer(difference))
    }
}
