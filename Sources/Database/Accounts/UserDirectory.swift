import MatrixCore

/// The directory of users: which words their names begin with, and who can be seen by whom.
extension Database {
    private static let byPrefix = Statement(
        "SELECT DISTINCT user_nid FROM user_words WHERE word >= $1 AND word < $2 LIMIT $3")

    /// Users with a word in their name that begins with a text. One range of one index.
    ///
    /// - Parameter prefix: bytes as ``Write/putUserWords(_:of:)`` stores them.
    public func users(withWord prefix: [UInt8], limit: Int, _ reader: any Reader) async throws -> [UserNID] {
        // No UTF-8 text holds the byte FF.
        try await reader.query(Self.byPrefix, [.blob(prefix), .blob(prefix + [0xFF]), .integer(Int64(limit))]) {
            UserNID($0.integer(0))
        }
    }

    private static let visible = Statement(
        """
        SELECT 1 FROM memberships theirs WHERE theirs.user_nid = $1 AND theirs.membership = 1 AND (
            EXISTS (SELECT 1 FROM open_rooms o WHERE o.room_nid = theirs.room_nid)
            OR EXISTS (
                SELECT 1 FROM memberships mine
                WHERE mine.user_nid = $2 AND mine.room_nid = theirs.room_nid AND mine.membership = 1))
        LIMIT 1
        """)

    /// Those of the users who share a room with somebody, or are in a room that everybody may enter or look into. Costs up to
    /// two point reads for each room of each.
    public func users(_ users: [UserNID], visibleTo user: UserNID, _ reader: any Reader) async throws -> Set<UserNID> {
        let found = try await reader.queryEach(Self.visible, users.map { [$0.value, user.value] }) { index, _ in
            users[index]
        }
        return Set(found)
    }

    private static let sharing = Statement(
        """
        SELECT 1 FROM memberships theirs JOIN memberships mine ON mine.room_nid = theirs.room_nid
        WHERE theirs.user_nid = $1 AND theirs.membership = 1 AND mine.user_nid = $2 AND mine.membership = 1 LIMIT 1
        """)

    /// Those of the users who are in a room with somebody.
    public func users(_ users: [UserNID], sharingRoomsWith user: UserNID, _ reader: any Reader) async throws
        -> Set<UserNID>
    {
        let found = try await reader.queryEach(Self.sharing, users.map { [$0.value, user.value] }) { index, _ in
            users[index]
        }
        return Set(found)
    }

    private static let accountsAfter = Statement(
        """
        SELECT a.user_nid, u.user_id, a.display_name FROM accounts a JOIN users u ON u.user_nid = a.user_nid
        WHERE a.user_nid > $1 AND a.deactivated_ts IS NULL ORDER BY a.user_nid LIMIT $2
        """)

    /// Active accounts behind a number, in the order of their numbers. One range of one table.
    public func accountNames(
        after number: Int64, limit: Int
    ) async throws -> [(nid: UserNID, userID: UserID, displayName: String?)] {
        try await read { reader in
            try await reader.query(Self.accountsAfter, [.integer(number), .integer(Int64(limit))]) {
                (UserNID($0.integer(0)), UserID(unchecked: $0.text(1)), $0.optionalText(2))
            }
        }
    }

    private static let roomsAfter = Statement(
        "SELECT room_nid FROM rooms WHERE room_nid > $1 ORDER BY room_nid LIMIT $2")

    public func rooms(after number: Int64, limit: Int) async throws -> [RoomNID] {
        try await read { reader in
            try await reader.query(Self.roomsAfter, [.integer(number), .integer(Int64(limit))]) {
                RoomNID($0.integer(0))
            }
        }
    }
}

extension Write {
    private static let deleteWords = Statement("DELETE FROM user_words WHERE user_nid = $1")
    private static let insertWord = Statement(
        "INSERT INTO user_words (word, user_nid) VALUES ($1, $2) ON CONFLICT DO NOTHING", isIndependent: true)

    /// Sets the words by which a user is found; none takes the user out of the directory.
    public mutating func putUserWords(_ words: Set<[UInt8]>, of user: UserNID) {
        run(Self.deleteWords, user.value)
        for word in words.sorted(by: { $0.lexicographicallyPrecedes($1) }) {
            run(Self.insertWord, .blob(word), user.value)
        }
    }

    private static let open = Statement("INSERT INTO open_rooms (room_nid) VALUES ($1) ON CONFLICT DO NOTHING")
    private static let close = Statement("DELETE FROM open_rooms WHERE room_nid = $1")

    /// Notes whether everybody may enter a room or look into it.
    public mutating func setOpen(_ isOpen: Bool, _ room: RoomNID) { run(isOpen ? Self.open : Self.close, room.value) }
}
