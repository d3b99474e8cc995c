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

        // Events that are to be sent later. What was sent or cancelled has no due time, and is kept for a while.
        """
        CREATE TABLE delayed_events (
            delay_id TEXT PRIMARY KEY, user_nid NUMBER NOT NULL, device_id TEXT NOT NULL, room_nid NUMBER NOT NULL,
            type BYTES NOT NULL, state_key BYTES, content BYTES NOT NULL, sticky NUMBER, origin_server_ts NUMBER,
            transaction_key BYTES NOT NULL, delay NUMBER NOT NULL, scheduled_ts NUMBER NOT NULL, due_ts NUMBER,
            finalised_ts NUMBER, event_id BYTES, error BYTES) HEAP
        """,
        "CREATE INDEX delayed_events_due ON delayed_events (due_ts) WHERE due_ts IS NOT NULL",
        "CREATE UNIQUE INDEX delayed_events_by_transaction ON delayed_events (user_nid, transaction_key)",
        "CREATE INDEX delayed_events_by_room ON delayed_events (room_nid)",

        // Events that are to be delivered to everybody in a room until a time.
        """
        CREATE TABLE sticky_events (
            room_nid NUMBER NOT NULL, position NUMBER NOT NULL, event_nid NUMBER NOT NULL, until_ts NUMBER NOT NULL,
            PRIMARY KEY (room_nid, position, event_nid)) CLUSTERED
        """,
        "CREATE INDEX sticky_events_by_end ON sticky_events (until_ts, room_nid)",

        // Threads that users follow; or did, and when they ceased to.
        """
        CREATE TABLE thread_subscriptions (
            user_nid NUMBER NOT NULL, room_nid NUMBER NOT NULL, root_nid NUMBER NOT NULL, subscribed NUMBER NOT NULL,
            automatic NUMBER NOT NULL, position NUMBER NOT NULL, PRIMARY KEY (user_nid, room_nid, root_nid)) CLUSTERED
        """,
        "CREATE INDEX thread_subscriptions_by_position ON thread_subscriptions (user_nid, position)",
        "CREATE INDEX thread_subscriptions_by_room ON thread_subscriptions (room_nid)",

        // When each field of each profile changed last.
        """
        CREATE TABLE profile_changes (
            user_nid NUMBER NOT NULL, field TEXT NOT NULL, position NUMBER NOT NULL,
            PRIMARY KEY (user_nid, field)) CLUSTERED
        """,
        "CREATE INDEX profile_changes_by_position ON profile_changes (position)",
    ]
}
