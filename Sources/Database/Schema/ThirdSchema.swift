extension Migration {
    /// What came with the whole of the client's daily use and with encryption. Each subject has a file of its own.
    static let third = Migration(
        version: 3, oldestBinary: 1,
        sql: ThirdSchema.accounts + ThirdSchema.media + ThirdSchema.encryption + ThirdSchema.reading
            + ThirdSchema.rooms + ThirdSchema.federation + ThirdSchema.discovery + ThirdSchema.sync)
}

/// The parts of ``Migration/third``.
enum ThirdSchema {}
