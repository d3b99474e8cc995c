extension ThirdSchema {
    /// Keys of devices and users, messages to devices, and backups of room keys.
    static let encryption: [String] = [
        // Identity keys of devices, as they were uploaded.
        """
        CREATE TABLE device_keys (
            user_nid NUMBER NOT NULL, device_id TEXT NOT NULL, json BYTES NOT NULL, position NUMBER NOT NULL,
            PRIMARY KEY (user_nid, device_id)) CLUSTERED
        """,
        // The hash is that of the public key: a key that was claimed once is not taken again under whatever name.
        """
        CREATE TABLE one_time_keys (
            user_nid NUMBER NOT NULL, device_id TEXT NOT NULL, algorithm TEXT NOT NULL, key_id TEXT NOT NULL,
            position NUMBER NOT NULL, key_hash BYTES NOT NULL, json BYTES NOT NULL,
            PRIMARY KEY (user_nid, device_id, algorithm, key_id)) CLUSTERED
        """,
        """
        CREATE INDEX one_time_keys_in_order ON one_time_keys (user_nid, device_id, algorithm, position, key_id)
        """,
        """
        CREATE TABLE claimed_keys (
            user_nid NUMBER NOT NULL, device_id TEXT NOT NULL, key_hash BYTES NOT NULL, position NUMBER NOT NULL,
            PRIMARY KEY (user_nid, device_id, key_hash)) CLUSTERED
        """,
        """
        CREATE TABLE fallback_keys (
            user_nid NUMBER NOT NULL, device_id TEXT NOT NULL, algorithm TEXT NOT NULL, key_id TEXT NOT NULL,
            used NUMBER NOT NULL DEFAULT 0, json BYTES NOT NULL,
            PRIMARY KEY (user_nid, device_id, algorithm)) CLUSTERED
        """,

        // Cross-signing keys without their signatures, which stand with those that came later.
        """
        CREATE TABLE cross_signing_keys (
            user_nid NUMBER NOT NULL, usage NUMBER NOT NULL, public_key TEXT NOT NULL, json BYTES NOT NULL,
            PRIMARY KEY (user_nid, usage)) CLUSTERED
        """,
        """
        CREATE TABLE key_signatures (
            user_nid NUMBER NOT NULL, key_id TEXT NOT NULL, signer_nid NUMBER NOT NULL, signer_key_id TEXT NOT NULL,
            signature TEXT NOT NULL, position NUMBER NOT NULL,
            PRIMARY KEY (user_nid, key_id, signer_nid, signer_key_id)) CLUSTERED
        """,
        "CREATE INDEX key_signatures_by_signer ON key_signatures (signer_nid, position)",

        // When each user's list of devices changed last: one row, however often it does and whoever watches.
        "CREATE TABLE device_lists (user_nid NUMBER PRIMARY KEY, position NUMBER NOT NULL) HEAP",
        "CREATE INDEX device_lists_by_position ON device_lists (position)",
        "CREATE INDEX memberships_by_position ON memberships (room_nid, position)",

        // Messages to devices. One that goes to several devices of a user has an empty device ID and a packed list; content
        // that goes to several users stands in a table of its own.
        """
        CREATE TABLE to_device (
            user_nid NUMBER NOT NULL, device_id TEXT NOT NULL, position NUMBER NOT NULL, place NUMBER NOT NULL,
            sender_nid NUMBER NOT NULL, type TEXT NOT NULL, devices BYTES NOT NULL, content BYTES) HEAP
        """,
        "CREATE UNIQUE INDEX to_device_in_order ON to_device (user_nid, device_id, position, place)",
        "CREATE INDEX to_device_by_body ON to_device (position, place) WHERE content IS NULL",
        """
        CREATE TABLE to_device_bodies (
            position NUMBER NOT NULL, place NUMBER NOT NULL, content BYTES NOT NULL,
            PRIMARY KEY (position, place)) CLUSTERED
        """,
        // How far a device has acknowledged what it shares with others, as long as that is there.
        """
        CREATE TABLE to_device_cursors (
            user_nid NUMBER NOT NULL, device_id TEXT NOT NULL, position NUMBER NOT NULL,
            PRIMARY KEY (user_nid, device_id)) CLUSTERED
        """,
        """
        CREATE TABLE dehydrated_devices (
            user_nid NUMBER PRIMARY KEY, device_id TEXT NOT NULL, device_data BYTES NOT NULL) HEAP
        """,

        // Backups of room keys. A deleted one leaves its number, which is not given again.
        """
        CREATE TABLE room_key_backups (
            user_nid NUMBER NOT NULL, version NUMBER NOT NULL, algorithm TEXT NOT NULL, auth_data BYTES NOT NULL,
            etag NUMBER NOT NULL, count NUMBER NOT NULL, deleted NUMBER NOT NULL DEFAULT 0,
            PRIMARY KEY (user_nid, version)) CLUSTERED
        """,
        """
        CREATE TABLE room_keys (
            user_nid NUMBER NOT NULL, version NUMBER NOT NULL, room_id BYTES NOT NULL, session_id TEXT NOT NULL,
            first_message_index NUMBER NOT NULL, forwarded_count NUMBER NOT NULL, is_verified NUMBER NOT NULL,
            session_data BYTES NOT NULL, PRIMARY KEY (user_nid, version, room_id, session_id)) HEAP
        """,
    ]
}
