import MatrixCore

/// What users are shown of rooms that this server isn't in.
extension Database {
    public struct StrippedRoomState: Sendable {
        /// The stripped events, as an array.
        public let events: [UInt8]
        /// The server through which the invitation came, or the knock went.
        public let via: ServerName?
    }

    private static let find = Statement("SELECT events, via FROM stripped_states WHERE user_nid = $1 AND room_nid = $2")

    public func strippedState(
        of room: RoomNID, for user: UserNID, _ reader: any Reader
    ) async throws -> StrippedRoomState? {
        try await reader.first(Self.find, [user.value, room.value]) {
            StrippedRoomState(events: $0.blob(0), via: ServerName($0.text(1)))
        }
    }
}

extension Write {
    private static let put = Statement(
        """
        INSERT INTO stripped_states (user_nid, room_nid, events, via) VALUES ($1, $2, $3, $4)
        ON CONFLICT (user_nid, room_nid) DO UPDATE SET events = excluded.events, via = excluded.via
        """)
    private static let drop = Statement("DELETE FROM stripped_states WHERE user_nid = $1 AND room_nid = $2")

    public mutating func putStrippedState(_ events: [UInt8], of room: RoomNID, for user: UserNID, via: ServerName) {
        run(Self.put, user.value, room.value, .blob(events), .identifier(via.string))
    }

    public mutating func dropStrippedState(of room: RoomNID, for user: UserNID) {
        run(Self.drop, user.value, room.value)
    }
}
