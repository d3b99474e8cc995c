extension ThirdSchema {
    /// What other servers and this one tell each other.
    static let federation = [
        // The room's state after a state event, which another server may build upon while this room has moved on.
        "ALTER TABLE events ADD COLUMN state_after NUMBER",
        // Keys of other servers, each with the last moment for which it may be used.
        """
        CREATE TABLE server_keys (
            server_nid NUMBER NOT NULL, key_id TEXT NOT NULL, public_key BYTES NOT NULL, valid_until_ts NUMBER NOT NULL,
            is_old NUMBER NOT NULL, PRIMARY KEY (server_nid, key_id)) CLUSTERED
        """,
        // The documents that they come from, as they were signed: for those who ask this server for them.
        """
        CREATE TABLE server_key_documents (
            server_nid NUMBER PRIMARY KEY, valid_until_ts NUMBER NOT NULL, fetched_ts NUMBER NOT NULL,
            document BYTES NOT NULL) HEAP
        """,
        // Servers that can't be reached, and from which position on they are owed what this server has to tell. All others
        // have got everything up to the setting `federation_settled`.
        """
        CREATE TABLE destinations (
            server_nid NUMBER PRIMARY KEY, position NUMBER NOT NULL, failing_since_ts NUMBER NOT NULL,
            retry_ts NUMBER NOT NULL) HEAP
        """,
        // Messages to devices of other servers, until these have taken them.
        """
        CREATE TABLE outgoing_to_device (
            server_nid NUMBER NOT NULL, position NUMBER NOT NULL, place NUMBER NOT NULL, content BYTES NOT NULL,
            PRIMARY KEY (server_nid, position, place)) CLUSTERED
        """,
        // Transactions of other servers, with what was answered.
        """
        CREATE TABLE inbound_transactions (
            server_nid NUMBER NOT NULL, transaction_id BYTES NOT NULL, received_ts NUMBER NOT NULL, answer BYTES NOT NULL,
            PRIMARY KEY (server_nid, transaction_id)) CLUSTERED
        """,
        "CREATE INDEX inbound_transactions_by_time ON inbound_transactions (received_ts)",
        // Events of other servers that wait for events before them.
        """
        CREATE TABLE staged_events (
            room_nid NUMBER NOT NULL, position NUMBER NOT NULL, place NUMBER NOT NULL, event_key BYTES NOT NULL,
            server_nid NUMBER NOT NULL, received_ts NUMBER NOT NULL, json BYTES NOT NULL,
            PRIMARY KEY (room_nid, position, place)) CLUSTERED
        """,
        "CREATE UNIQUE INDEX staged_events_by_key ON staged_events (event_key)",
        // Messages to devices that have come, so that they aren't delivered a second time.
        """
        CREATE TABLE received_to_device (
            server_nid NUMBER NOT NULL, message_id BYTES NOT NULL, received_ts NUMBER NOT NULL,
            PRIMARY KEY (server_nid, message_id)) CLUSTERED
        """,
        "CREATE INDEX received_to_device_by_time ON received_to_device (received_ts)",
        // Devices and keys of users of other servers, as those told them.
        "CREATE TABLE remote_devices (user_nid NUMBER PRIMARY KEY, fetched_ts NUMBER NOT NULL, answer BYTES NOT NULL) HEAP",
        // What a user who is invited to a room that this server isn't in, or knocks there, is shown of it.
        """
        CREATE TABLE stripped_states (
            user_nid NUMBER NOT NULL, room_nid NUMBER NOT NULL, events BYTES NOT NULL, via BYTES NOT NULL,
            PRIMARY KEY (user_nid, room_nid)) CLUSTERED
        """,
        "CREATE INDEX stripped_states_by_room ON stripped_states (room_nid)",
        // Media of other servers that are kept here for a while.
        """
        CREATE TABLE remote_media (
            server_nid NUMBER NOT NULL, media_id TEXT NOT NULL, fetched_ts NUMBER NOT NULL, content_type TEXT,
            file_name TEXT, size NUMBER NOT NULL, content_hash BYTES NOT NULL, PRIMARY KEY (server_nid, media_id)) CLUSTERED
        """,
        "CREATE INDEX remote_media_by_content ON remote_media (content_hash)",
    ]
}
