/// Migrations that take too long for the start: they are done in batches while the server runs, by one node at a time, and go
/// on where they were after a restart. Until one is done, what it fills is incomplete, and readers know how to do without.
extension Database {
    private static let next = Statement("SELECT cursor FROM background_migrations WHERE name = $1")

    /// How far a background migration has come; nil if it is done.
    public func backgroundMigration(_ name: String) async throws -> Int64? {
        try await readOnce { try await $0.first(Self.next, [.text(name)]) { $0.integer(0) } }
    }

    private static let eventsAfter = Statement(
        "SELECT \(StoredEvent.columns) FROM events WHERE event_nid > $1 ORDER BY event_nid LIMIT $2")

    /// Events by their numbers, whatever room they are in. One range of the table.
    public func events(after number: Int64, limit: Int) async throws -> [StoredEvent] {
        try await read { reader in
            try await reader.query(Self.eventsAfter, [.integer(number), .integer(Int64(limit))]) {
                try StoredEvent(row: $0)
            }
        }
    }
}

extension Write {
    private static let begin = Statement(
        "INSERT INTO background_migrations (name, cursor) VALUES ($1, 0) ON CONFLICT (name) DO UPDATE SET cursor = 0")
    private static let advance = Statement("UPDATE background_migrations SET cursor = $2 WHERE name = $1")
    private static let finish = Statement("DELETE FROM background_migrations WHERE name = $1")

    mutating func beginBackgroundMigration(_ name: String) { run(Self.begin, .text(name)) }

    /// Notes how far a background migration has come, together with what it has done.
    public mutating func advanceBackgroundMigration(_ name: String, to cursor: Int64) {
        expect(1, otherwise: "the migration \(name) is done", Self.advance, .text(name), .integer(cursor))
    }

    public mutating func finishBackgroundMigration(_ name: String) { run(Self.finish, .text(name)) }
}
