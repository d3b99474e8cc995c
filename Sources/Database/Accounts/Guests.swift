import MatrixCore

extension Database {
    private static let guests = Statement(
        """
        SELECT m.user_nid, u.user_id FROM memberships m JOIN accounts a ON a.user_nid = m.user_nid
        JOIN users u ON u.user_nid = m.user_nid WHERE m.room_nid = $1 AND m.membership = $2 AND a.standing & 1 = 1
        """)

    /// The guests who are in a room.
    public func guests(in room: RoomNID, _ reader: any Reader) async throws -> [(UserNID, UserID)] {
        try await reader.query(Self.guests, [room.value, .integer(StoredMembership.join.rawValue)]) {
            (UserNID($0.integer(0)), UserID(unchecked: $0.text(1)))
        }
    }
}
