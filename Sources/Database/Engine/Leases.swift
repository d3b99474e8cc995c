/// Work that one node at a time holds: a destination, a pusher, a long migration.
public struct Lease: Sendable, Hashable {
    public let name: String
    public let holder: String
    /// Goes up with each holder. Writes made under the lease name it (``Write/require(_:)``), so that a holder which has been
    /// overtaken, and doesn't know, can do no harm.
    public let token: Int64
}

extension Database {
    private static let acquire = Statement(
        """
        INSERT INTO leases (name, holder, token, expires_ts) VALUES ($1, $2, 1, $3)
        ON CONFLICT (name) DO UPDATE SET
            token = CASE WHEN leases.holder = excluded.holder THEN leases.token ELSE leases.token + 1 END,
            holder = excluded.holder, expires_ts = excluded.expires_ts
        WHERE leases.holder = excluded.holder OR leases.expires_ts <= $4
        RETURNING token
        """)

    /// Takes a lease, or keeps it for longer.
    ///
    /// - Parameters:
    ///   - holder: who takes it: a name of the process.
    ///   - now: milliseconds since 1970, by the clock that all nodes go by.
    ///   - duration: milliseconds until somebody else may take it.
    /// - Returns: nil while somebody else holds it.
    public func lease(_ name: String, holder: String, now: Int64, duration: Int64) async throws -> Lease? {
        var write = Write()
        let place = write.returning(
            Self.acquire, .text(name), .text(holder), .integer(now + duration), .integer(now))
        guard case .integer(let token)? = try await self.write(write).rows[place].first?.first else { return nil }
        return Lease(name: name, holder: holder, token: token)
    }
}

extension Database {
    private static let isHeld = Statement(
        "SELECT 1 FROM leases WHERE name = $1 AND holder = $2 AND token = $3")

    /// Whether a lease has not gone to somebody else yet. Only ``Write/require(_:)`` makes sure of it.
    public func isHeld(_ lease: Lease) async throws -> Bool {
        let values: [SQLValue] = [.text(lease.name), .text(lease.holder), .integer(lease.token)]
        return try await readOnce { try await $0.first(Self.isHeld, values) { _ in true } } ?? false
    }
}

extension Write {
    private static let holds = Statement(
        "UPDATE leases SET token = token WHERE name = $1 AND holder = $2 AND token = $3")
    private static let release = Statement(
        "UPDATE leases SET expires_ts = 0 WHERE name = $1 AND holder = $2 AND token = $3")

    /// Lets the write happen only if the lease has not gone to somebody else; it fails as a conflict otherwise.
    public mutating func require(_ lease: Lease) {
        expect(
            1, otherwise: "the lease \(lease.name) has gone to another node", Self.holds, .text(lease.name),
            .text(lease.holder), .integer(lease.token))
    }

    /// Lets somebody else have the lease at once.
    public mutating func release(_ lease: Lease) {
        run(Self.release, .text(lease.name), .text(lease.holder), .integer(lease.token))
    }
}
