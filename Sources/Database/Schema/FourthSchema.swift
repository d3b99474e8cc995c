extension Migration {
    /// What came with joining rooms before all of their members are known.
    static let fourth = Migration(
        version: 4, oldestBinary: 1,
        sql: [
            // The event by which this server came into a room whose members it doesn't all know yet.
            "ALTER TABLE rooms ADD COLUMN partial_join NUMBER",
            // From whom the rest of such a room's state is to be had. The servers are counted in room_servers until then, one
            // member each.
            """
            CREATE TABLE partial_rooms (
                room_nid NUMBER PRIMARY KEY, via BYTES NOT NULL, servers BYTES NOT NULL, since_ts NUMBER NOT NULL) HEAP
            """,
        ])
}
