extension ThirdSchema {
    /// Search, pushers, and the directories of application services.
    static let discovery: [String] = [
        // The words of messages, for search: by room, because people search the rooms that they are in. The timestamp is the
        // event's own; results are shown by it.
        """
        CREATE TABLE search_words (
            room_nid NUMBER NOT NULL, word BYTES NOT NULL, timestamp NUMBER NOT NULL, event_nid NUMBER NOT NULL,
            PRIMARY KEY (room_nid, word, timestamp, event_nid)) CLUSTERED
        """,
        // Events whose words are still to be written there.
        """
        CREATE TABLE search_queue (
            room_nid NUMBER NOT NULL, event_nid NUMBER NOT NULL, PRIMARY KEY (room_nid, event_nid)) CLUSTERED
        """,
        "INSERT INTO background_migrations VALUES ('search queue', 0)",
        // Who is to be told of notifications by which gateway: what the client said, as JSON. A pusher ends with its device.
        """
        CREATE TABLE pushers (
            user_nid NUMBER NOT NULL, app_id TEXT NOT NULL, pushkey TEXT NOT NULL, device_id TEXT NOT NULL,
            created_ts NUMBER NOT NULL, json BYTES NOT NULL, PRIMARY KEY (user_nid, app_id, pushkey)) CLUSTERED
        """,
        "CREATE INDEX pushers_by_key ON pushers (app_id, pushkey)",
        // Rooms that application services list for the networks they connect.
        """
        CREATE TABLE network_rooms (
            appservice_id TEXT NOT NULL, network_id TEXT NOT NULL, room_nid NUMBER NOT NULL,
            PRIMARY KEY (appservice_id, network_id, room_nid)) CLUSTERED
        """,
        "CREATE INDEX network_rooms_by_room ON network_rooms (room_nid)",
    ]
}
