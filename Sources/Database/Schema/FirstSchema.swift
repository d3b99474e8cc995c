extension Migration {
    /// The first schema. What each table is for, and why it is as it is, stands in `docs/database.md`.
    static let first = Migration(
        version: 1, oldestBinary: 1,
        sql: [
            // The database itself.
            "CREATE TABLE schema_version (version NUMBER NOT NULL, oldest_binary NUMBER NOT NULL) HEAP",
            "CREATE TABLE counters (name TEXT PRIMARY KEY, next NUMBER NOT NULL) CLUSTERED",
            "INSERT INTO counters VALUES ('position', 1), ('event', 1), ('room', 1), ('chain', 1), ('backfill', 1)",
            "CREATE TABLE settings (name TEXT PRIMARY KEY, value BYTES NOT NULL) CLUSTERED",
            """
            CREATE TABLE signing_keys (
                key_id TEXT PRIMARY KEY, seed BYTES NOT NULL, created_ts NUMBER NOT NULL, expired_ts NUMBER) CLUSTERED
            """,

            // Work that one node at a time may do. The token goes up with each holder, and fences the ones before.
            """
            CREATE TABLE leases (
                name TEXT PRIMARY KEY, holder TEXT NOT NULL, token NUMBER NOT NULL, expires_ts NUMBER NOT NULL) CLUSTERED
            """,

            // Identifiers, each with a number.
            "CREATE TABLE users (user_nid IDENTITY, user_id BYTES NOT NULL UNIQUE) HEAP",
            "CREATE TABLE servers (server_nid IDENTITY, server_name BYTES NOT NULL UNIQUE) HEAP",
            "CREATE TABLE event_types (type_nid IDENTITY, type BYTES NOT NULL UNIQUE) HEAP",
            """
            CREATE TABLE state_keys (
                state_key_nid IDENTITY, type BYTES NOT NULL, state_key BYTES NOT NULL, UNIQUE (type, state_key)) HEAP
            """,

            // Accounts.
            """
            CREATE TABLE accounts (
                user_nid NUMBER PRIMARY KEY, password_hash TEXT, created_ts NUMBER NOT NULL,
                admin NUMBER NOT NULL DEFAULT 0, deactivated_ts NUMBER, display_name TEXT, avatar_url TEXT) HEAP
            """,
            """
            CREATE TABLE devices (
                user_nid NUMBER NOT NULL, device_id TEXT NOT NULL, display_name TEXT, created_ts NUMBER NOT NULL,
                last_seen_ts NUMBER, last_seen_ip TEXT, PRIMARY KEY (user_nid, device_id)) CLUSTERED
            """,
            """
            CREATE TABLE access_tokens (
                token_hash BYTES PRIMARY KEY, user_nid NUMBER NOT NULL, device_id TEXT NOT NULL,
                created_ts NUMBER NOT NULL, expires_ts NUMBER) CLUSTERED
            """,
            "CREATE INDEX access_tokens_by_device ON access_tokens (user_nid, device_id)",
            """
            CREATE TABLE registration_tokens (
                token TEXT PRIMARY KEY, uses_allowed NUMBER, completed NUMBER NOT NULL DEFAULT 0, expires_ts NUMBER,
                created_ts NUMBER NOT NULL) CLUSTERED
            """,
            """
            CREATE TABLE interactive_sessions (
                session_id TEXT PRIMARY KEY, created_ts NUMBER NOT NULL, state BYTES NOT NULL) CLUSTERED
            """,
            "CREATE INDEX interactive_sessions_by_age ON interactive_sessions (created_ts)",
            """
            CREATE TABLE filters (
                user_nid NUMBER NOT NULL, filter_nid NUMBER NOT NULL, filter BYTES NOT NULL,
                PRIMARY KEY (user_nid, filter_nid)) CLUSTERED
            """,
            """
            CREATE TABLE account_data (
                user_nid NUMBER NOT NULL, room_nid NUMBER NOT NULL, type TEXT NOT NULL, content BYTES NOT NULL,
                position NUMBER NOT NULL, PRIMARY KEY (user_nid, room_nid, type)) CLUSTERED
            """,
            "CREATE INDEX account_data_by_position ON account_data (user_nid, position)",

            // Rooms.
            """
            CREATE TABLE rooms (
                room_nid NUMBER PRIMARY KEY, room_id BYTES NOT NULL UNIQUE, version TEXT NOT NULL, state_nid NUMBER NOT NULL,
                next_state_nid NUMBER NOT NULL, extremities BYTES NOT NULL, depth NUMBER NOT NULL,
                state_version NUMBER NOT NULL, timeline_version NUMBER NOT NULL) HEAP
            """,
            """
            CREATE TABLE events (
                event_nid NUMBER PRIMARY KEY, event_key BYTES NOT NULL UNIQUE, event_id BYTES NOT NULL,
                room_nid NUMBER NOT NULL, position NUMBER, order_depth NUMBER NOT NULL, type_nid NUMBER NOT NULL,
                sender_nid NUMBER NOT NULL, state_key_nid NUMBER, state_before NUMBER, flags NUMBER NOT NULL,
                origin_server_ts NUMBER NOT NULL, redacted_by NUMBER, replaces NUMBER,
                chain_nid NUMBER, chain_place NUMBER, previous BYTES NOT NULL, auth BYTES NOT NULL,
                transaction_key BYTES, cuts BYTES NOT NULL, json BYTES NOT NULL) HEAP
            """,
            "CREATE INDEX events_in_order ON events (room_nid, order_depth, position) WHERE position IS NOT NULL",
            "CREATE INDEX events_by_position ON events (position, room_nid) WHERE position IS NOT NULL",
            // What held a state key over time: of a member's key, the membership.
            """
            CREATE INDEX events_by_state_key ON events (state_key_nid, room_nid, order_depth, position)
            WHERE state_key_nid IS NOT NULL
            """,
            // The chain cover of the auth graph: events of one chain authorise one another in their order; links lead from a
            // place of one chain to a place of another.
            """
            CREATE TABLE chain_places (
                chain_nid NUMBER NOT NULL, place NUMBER NOT NULL, event_nid NUMBER NOT NULL,
                PRIMARY KEY (chain_nid, place)) CLUSTERED
            """,
            """
            CREATE TABLE chain_links (
                chain_nid NUMBER NOT NULL, place NUMBER NOT NULL, to_chain NUMBER NOT NULL, to_place NUMBER NOT NULL,
                PRIMARY KEY (chain_nid, place, to_chain)) CLUSTERED
            """,
            // Stretches of history that this server lacks: before the event at that place, these events are missing.
            """
            CREATE TABLE gaps (
                room_nid NUMBER NOT NULL, event_nid NUMBER NOT NULL, missing BYTES NOT NULL,
                PRIMARY KEY (room_nid, event_nid)) CLUSTERED
            """,
            // What was deleted on purpose, so that it is not fetched again.
            """
            CREATE TABLE purged_events (
                event_key BYTES PRIMARY KEY, room_nid NUMBER NOT NULL, event_nid NUMBER NOT NULL) CLUSTERED
            """,
            "CREATE INDEX purged_events_by_number ON purged_events (event_nid)",
            """
            CREATE TABLE purges (
                room_nid NUMBER PRIMARY KEY, before_depth NUMBER, before_position NUMBER, begun_ts NUMBER NOT NULL) HEAP
            """,
            // Events whose bytes are to be overwritten, because they are redacted.
            """
            CREATE TABLE overwrites (
                due_ts NUMBER NOT NULL, event_nid NUMBER NOT NULL, PRIMARY KEY (due_ts, event_nid)) CLUSTERED
            """,
            // A redaction may arrive before the event it redacts.
            """
            CREATE TABLE redactions (
                target_key BYTES NOT NULL, event_nid NUMBER NOT NULL, PRIMARY KEY (target_key, event_nid)) CLUSTERED
            """,
            """
            CREATE TABLE transactions (
                user_nid NUMBER NOT NULL, transaction_key BYTES NOT NULL, event_id BYTES NOT NULL,
                created_ts NUMBER NOT NULL, PRIMARY KEY (user_nid, transaction_key)) CLUSTERED
            """,
            """
            CREATE TABLE state_nodes (
                room_nid NUMBER NOT NULL, state_nid NUMBER NOT NULL, nodes BYTES NOT NULL,
                PRIMARY KEY (room_nid, state_nid)) CLUSTERED
            """,
            // What the current state of a room was from a position on.
            """
            CREATE TABLE room_states (
                room_nid NUMBER NOT NULL, position NUMBER NOT NULL, state_nid NUMBER NOT NULL,
                PRIMARY KEY (room_nid, position)) CLUSTERED
            """,
            """
            CREATE TABLE memberships (
                user_nid NUMBER NOT NULL, room_nid NUMBER NOT NULL, membership NUMBER NOT NULL, event_nid NUMBER NOT NULL,
                position NUMBER NOT NULL, forgotten NUMBER NOT NULL DEFAULT 0, PRIMARY KEY (user_nid, room_nid)) CLUSTERED
            """,
            "CREATE INDEX memberships_by_room ON memberships (room_nid, membership, user_nid)",
            // The servers in a room, with the number of their joined members.
            """
            CREATE TABLE room_servers (
                room_nid NUMBER NOT NULL, server_nid NUMBER NOT NULL, joined NUMBER NOT NULL,
                PRIMARY KEY (room_nid, server_nid)) CLUSTERED
            """,
            """
            CREATE TABLE receipts (
                room_nid NUMBER NOT NULL, user_nid NUMBER NOT NULL, type TEXT NOT NULL, thread TEXT NOT NULL,
                event_id BYTES NOT NULL, ts NUMBER NOT NULL, position NUMBER NOT NULL,
                PRIMARY KEY (room_nid, user_nid, type, thread)) CLUSTERED
            """,
            "CREATE INDEX receipts_by_position ON receipts (room_nid, position)",
            """
            CREATE TABLE room_aliases (
                alias BYTES PRIMARY KEY, room_nid NUMBER NOT NULL, creator_nid NUMBER NOT NULL,
                created_ts NUMBER NOT NULL) CLUSTERED
            """,
            "CREATE INDEX room_aliases_by_room ON room_aliases (room_nid)",
            "CREATE TABLE published_rooms (room_nid NUMBER PRIMARY KEY) HEAP",

            // Media. Files lie in the blob store under the hash of their content.
            """
            CREATE TABLE media (
                media_id TEXT PRIMARY KEY, uploader_nid NUMBER NOT NULL, created_ts NUMBER NOT NULL, content_type TEXT,
                file_name TEXT, size NUMBER NOT NULL, content_hash BYTES NOT NULL) CLUSTERED
            """,
            "CREATE INDEX media_by_content ON media (content_hash)",
        ])
}
