extension ThirdSchema {
    /// What members haven't read yet.
    static let reading: [String] = [
        // Whether an event is a notification by the rules that everybody starts with, and in which thread: see NotifyingMark.
        "ALTER TABLE events ADD COLUMN notifying NUMBER",
        // Counting reads the index alone, and a message costs no page more.
        "DROP INDEX events_in_order",
        """
        CREATE INDEX events_in_order ON events (room_nid, order_depth, position, notifying, sender_nid)
        WHERE position IS NOT NULL
        """,
        // What an event is to a user to whom it is something else than to everybody.
        """
        CREATE TABLE notifications (
            user_nid NUMBER NOT NULL, room_nid NUMBER NOT NULL, order_depth NUMBER NOT NULL, position NUMBER NOT NULL,
            event_nid NUMBER NOT NULL, thread_nid NUMBER NOT NULL, outcome NUMBER NOT NULL,
            PRIMARY KEY (user_nid, room_nid, order_depth, position)) CLUSTERED
        """,
        "CREATE INDEX notifications_by_room ON notifications (room_nid)",
        // Whether an account's push rules are not those that everybody starts with.
        "ALTER TABLE accounts ADD COLUMN has_push_rules NUMBER NOT NULL DEFAULT 0",
        """
        UPDATE accounts SET has_push_rules = 1 WHERE user_nid IN (
            SELECT user_nid FROM account_data WHERE room_nid = 0 AND type = 'm.push_rules')
        """,
        // The directory of users: the words of their names, and the rooms whose members everybody may see.
        "CREATE TABLE user_words (word BYTES NOT NULL, user_nid NUMBER NOT NULL, PRIMARY KEY (word, user_nid)) CLUSTERED",
        "CREATE INDEX user_words_by_user ON user_words (user_nid)",
        "CREATE TABLE open_rooms (room_nid NUMBER PRIMARY KEY) HEAP",
        "INSERT INTO background_migrations VALUES ('user words', 0), ('open rooms', 0)",
        // Who was online last, and what they said of themselves.
        """
        CREATE TABLE presence (
            user_nid NUMBER PRIMARY KEY, state NUMBER NOT NULL, status TEXT, last_active_ts NUMBER NOT NULL) HEAP
        """,
    ]
}
