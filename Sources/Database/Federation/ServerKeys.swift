import MatrixCore

/// Keys of other servers, as they were fetched.
extension Database {
    /// A key and until when it may be used.
    public struct StoredServerKey: Sendable, Hashable {
        public let keyID: String
        public let publicKey: [UInt8]
        /// Milliseconds since 1970.
        public let validUntil: Int64
        /// Whether its server signs with another one now.
        public let isOld: Bool

        public init(keyID: String, publicKey: [UInt8], validUntil: Int64, isOld: Bool) {
            self.keyID = keyID
            self.publicKey = publicKey
            self.validUntil = validUntil
            self.isOld = isOld
        }
    }

    private static let keysOf = Statement(
        "SELECT key_id, public_key, valid_until_ts, is_old FROM server_keys WHERE server_nid = $1")

    public func serverKeys(of server: ServerNID) async throws -> [StoredServerKey] {
        try await readOnce { reader in
            try await reader.query(Self.keysOf, [server.value]) {
                StoredServerKey(keyID: $0.text(0), publicKey: $0.blob(1), validUntil: $0.integer(2), isOld: $0.flag(3))
            }
        }
    }

    private static let documentOf = Statement(
        "SELECT document, valid_until_ts, fetched_ts FROM server_key_documents WHERE server_nid = $1")

    /// The document that a server's keys come from, with the last moment for which it is good and when it was fetched.
    public func keyDocument(
        of server: ServerNID
    ) async throws -> (json: [UInt8], validUntil: Int64, fetched: Int64)? {
        try await readOnce { reader in
            try await reader.first(Self.documentOf, [server.value]) { ($0.blob(0), $0.integer(1), $0.integer(2)) }
        }
    }

    private static let ownKeys = Statement("SELECT key_id, seed, expired_ts FROM signing_keys ORDER BY created_ts")

    /// The keys that this server has signed with before, with the moment at which each was given up.
    public func expiredSigningKeys() async throws -> [(key: StoredSigningKey, expired: Int64)] {
        try await readOnce { reader in
            try await reader.query(Self.ownKeys, []) { row in
                row.optionalInteger(2).map { (StoredSigningKey(keyID: row.text(0), seed: row.blob(1)), $0) }
            }
        }.compactMap { $0 }
    }

    private static let giveUp = Statement("UPDATE signing_keys SET expired_ts = $1 WHERE expired_ts IS NULL")
    private static let addKey = Statement("INSERT INTO signing_keys (key_id, seed, created_ts) VALUES ($1, $2, $3)")

    /// Gives up the key that the server signs with for a new one.
    public func rotateSigningKey(to keyID: String, seed: [UInt8], at time: Int64) async throws {
        var write = Write()
        _ = write.takePosition()
        // All nodes sign with the new one from now on.
        write.topics.append(.everything)
        write.run(Self.giveUp, .integer(time))
        write.run(Self.addKey, .text(keyID), .blob(seed), .integer(time))
        try await self.write(write)
    }
}

extension Write {
    private static let putKey = Statement(
        """
        INSERT INTO server_keys (server_nid, key_id, public_key, valid_until_ts, is_old) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (server_nid, key_id) DO UPDATE SET public_key = excluded.public_key,
            valid_until_ts = excluded.valid_until_ts, is_old = excluded.is_old
        """)
    private static let putDocument = Statement(
        """
        INSERT INTO server_key_documents (server_nid, valid_until_ts, fetched_ts, document) VALUES ($1, $2, $3, $4)
        ON CONFLICT (server_nid) DO UPDATE SET valid_until_ts = excluded.valid_until_ts, fetched_ts = excluded.fetched_ts,
            document = excluded.document
        """)

    /// Keeps what a server has said about its keys.
    public mutating func put(
        _ keys: [Database.StoredServerKey], document: [UInt8], validUntil: Int64, of server: ServerNID, at time: Int64
    ) {
        for key in keys {
            run(
                Self.putKey, server.value, .text(key.keyID), .blob(key.publicKey), .integer(key.validUntil),
                .integer(key.isOld ? 1 : 0))
        }
        run(Self.putDocument, server.value, .integer(validUntil), .integer(time), .blob(document))
    }
}
