/// What is true of the database as a whole.
extension Database {
    private static let find = Statement("SELECT value FROM settings WHERE name = $1")
    private static let insert = Statement("INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING")

    public func setting(_ name: String) async throws -> [UInt8]? {
        try await readOnce { try await $0.first(Self.find, [.text(name)]) { $0.blob(0) } }
    }

    /// The value of a setting; `initial` if it has none yet, from now on.
    public func setting(_ name: String, initial: [UInt8]) async throws -> [UInt8] {
        if let value = try await setting(name) { return value }
        var write = Write()
        write.run(Self.insert, .text(name), .blob(initial))
        try await self.write(write)
        return try await setting(name) ?? initial
    }

    private static let replace = Statement(
        """
        INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value
        """)

    /// Begins a new epoch after a restore: tokens and streams from before it mean nothing any more, one-time keys may have
    /// been handed out since, and devices of other servers' users may have changed, which those servers told once. What others were
    /// told of devices here since may be forgotten, so they are to be told to ask again.
    ///
    /// - Parameter now: milliseconds; ``restoredAt()`` tells it from now on.
    public func beginEpoch(_ epoch: [UInt8], at now: Int64) async throws {
        var write = Write()
        write.run(Self.replace, .text("epoch"), .blob(epoch))
        write.run(Self.replace, .text("restored_ts"), .blob(Array("\(now)".utf8)))
        write.dropUnclaimedKeys()
        write.dropAllRemoteDevices()
        write.beginBackgroundMigration("restored devices")
        try await self.write(write)
    }

    /// When the database was restored last, in milliseconds; nil if it never was.
    public func restoredAt() async throws -> Int64? {
        try await setting("restored_ts").flatMap { Int64(String(decoding: $0, as: UTF8.self)) }
    }

    /// A signing key of this server.
    public struct StoredSigningKey: Sendable {
        /// `ed25519:` and the version.
        public let keyID: String
        /// 32 bytes.
        public let seed: [UInt8]
    }

    private static let currentKey = Statement(
        "SELECT key_id, seed FROM signing_keys WHERE expired_ts IS NULL ORDER BY created_ts DESC LIMIT 1")
    private static let insertKey = Statement(
        """
        INSERT INTO signing_keys (key_id, seed, created_ts)
        SELECT $1, $2, $3 WHERE NOT EXISTS (SELECT 1 FROM signing_keys WHERE expired_ts IS NULL)
        """)

    /// The key that this server signs with.
    public func signingKey() async throws -> StoredSigningKey? {
        try await readOnce { reader in
            try await reader.first(Self.currentKey, []) { StoredSigningKey(keyID: $0.text(0), seed: $0.blob(1)) }
        }
    }

    /// Gives the server a key if it has none, and answers the one that it has: of nodes that begin at the same time, all go on
    /// with the same.
    public func putFirstSigningKey(_ keyID: String, seed: [UInt8], at time: Int64) async throws -> StoredSigningKey {
        var write = Write()
        // Writes with positions are carried out one after another, on whatever node.
        _ = write.takePosition()
        write.run(Self.insertKey, .text(keyID), .blob(seed), .integer(time))
        try await self.write(write)
        guard let key = try await signingKey() else { throw DatabaseError.corrupt("the signing key is missing") }
        return key
    }
}
