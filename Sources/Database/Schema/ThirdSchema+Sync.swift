extension ThirdSchema {
    /// What syncs need besides rooms and events.
    static let sync: [String] = [
        // What lists of rooms are ordered and filtered by, in the row that each event changes anyway. NULL: not known yet, see
        // RoomFacts.
        "ALTER TABLE rooms ADD COLUMN newest_position NUMBER",
        "ALTER TABLE rooms ADD COLUMN bump_position NUMBER",
        "ALTER TABLE rooms ADD COLUMN room_type BYTES",
        "ALTER TABLE rooms ADD COLUMN is_encrypted NUMBER",
        // How a membership ended: bits of MembershipEnding. NULL: not known, or it hasn't.
        "ALTER TABLE memberships ADD COLUMN ending NUMBER",

        // Connections of sliding sync. A client may come back with the position it had before the last answer: what that
        // answer told is pending until the client comes with its position.
        """
        CREATE TABLE sliding_connections (
            connection_nid NUMBER PRIMARY KEY, user_nid NUMBER NOT NULL, device_id TEXT NOT NULL, conn_id TEXT NOT NULL,
            generation NUMBER NOT NULL, pending NUMBER NOT NULL, configs BYTES NOT NULL, used_ts NUMBER NOT NULL) HEAP
        """,
        "CREATE UNIQUE INDEX sliding_connections_by_device ON sliding_connections (user_nid, device_id, conn_id)",
        "CREATE INDEX sliding_connections_by_age ON sliding_connections (used_ts)",
        // What a connection has told of each room. Rows of purged rooms stay until the connection ends: they hold numbers.
        """
        CREATE TABLE sliding_rooms (
            connection_nid NUMBER NOT NULL, pending NUMBER NOT NULL, room_nid NUMBER NOT NULL, position NUMBER NOT NULL,
            told NUMBER NOT NULL, config NUMBER NOT NULL, flags NUMBER NOT NULL,
            PRIMARY KEY (connection_nid, pending, room_nid)) CLUSTERED
        """,
    ]
}
