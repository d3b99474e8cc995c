extension Migration {
    /// What came with push rules about threads.
    static let fifth = Migration(
        version: 5, oldestBinary: 1,
        sql: [
            // Who follows a thread is asked for each message in it; what a room has is found by the same index.
            "DROP INDEX thread_subscriptions_by_room",
            "CREATE INDEX thread_subscriptions_by_thread ON thread_subscriptions (room_nid, root_nid)",
        ])
}
