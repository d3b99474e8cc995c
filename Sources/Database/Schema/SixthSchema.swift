extension Migration {
    /// What came with packed events (``PackedEvent``): nothing is changed, but older binaries can't read what is written from here on.
    static let sixth = Migration(version: 6, oldestBinary: 6, sql: [])
}
