import MatrixCore

extension Database {
    private static let wellKnownTypes = ["m.room.member", "m.room.message", "m.room.encrypted", "m.room.redaction"]
    private static let wellKnownStateKeys: [StateKey] = [
        .create, .powerLevels, .joinRules, .historyVisibility, .encryption, .serverACL, .policy,
        StateKey("m.room.name"), StateKey("m.room.avatar"), StateKey("m.room.topic"),
        StateKey("m.room.canonical_alias"), StateKey("m.room.guest_access"), StateKey("m.room.tombstone"),
        StateKey("m.room.pinned_events"),
    ]

    /// Numbers what is looked for in every room: what has no number would be asked for again each time.
    public func numberWellKnown() async throws {
        _ = try await numbers(ofTypes: Self.wellKnownTypes.map { EventType($0) })
        _ = try await numbers(ofStateKeys: Self.wellKnownStateKeys)
    }
}
