/// Redacted events whose bytes are to be overwritten.
extension Database {
    private static let due = Statement(
        "SELECT due_ts, event_nid FROM overwrites WHERE due_ts <= $1 ORDER BY due_ts, event_nid LIMIT $2")

    /// Events whose time has come, oldest plans first.
    public func overwritesDue(at now: Int64, limit: Int) async throws -> [(due: Int64, event: EventNID)] {
        try await read { reader in
            try await reader.query(Self.due, [.integer(now), .integer(Int64(limit))]) {
                ($0.integer(0), EventNID($0.integer(1)))
            }
        }
    }

    private static let next = Statement("SELECT min(due_ts) FROM overwrites")

    /// When the next overwriting is due; nil if none is planned.
    public func nextOverwrite() async throws -> Int64? {
        try await read { try await $0.first(Self.next, []) { $0.optionalInteger(0) } } ?? nil
    }
}

extension Write {
    private static let overwrite = Statement("UPDATE events SET json = $2, cuts = $3 WHERE event_nid = $1")
    private static let done = Statement("DELETE FROM overwrites WHERE due_ts = $1 AND event_nid = $2")

    /// Replaces the bytes of an event by its pruned form, and forgets the plan.
    public mutating func overwrite(_ event: EventNID, plannedAt due: Int64, json: [UInt8], cuts: [Range<Int>]) {
        run(Self.overwrite, event.value, .blob(PackedEvent.pack(json)), .blob(StoredEvent.packCuts(cuts)))
        topics.append(.event(event))
        run(Self.done, .integer(due), event.value)
    }

    /// Forgets the plan of an event that is gone.
    public mutating func dropOverwrite(_ event: EventNID, plannedAt due: Int64) {
        run(Self.done, .integer(due), event.value)
    }
}
