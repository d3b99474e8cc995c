import MatrixCore

/// What clients' transactions made (Client-Server API, "Transaction identifiers"), for as long as they may be repeated.
extension Write {
    private static let insert = Statement(
        "INSERT INTO transactions (user_nid, transaction_key, event_id, created_ts) VALUES ($1, $2, $3, $4)")

    /// Remembers what a client's transaction made; a second one with the same key fails as a constraint.
    public mutating func rememberTransaction(_ key: [UInt8], of user: UserNID, made event: EventID, at time: Int64) {
        run(Self.insert, user.value, .blob(key), .blob(PackedEventID.pack(event)), .integer(time))
    }

    private static let forget = Statement(
        """
        DELETE FROM transactions WHERE (user_nid, transaction_key) >= ($1, $2) AND (user_nid, transaction_key) <= ($3, $4)
            AND created_ts < $5
        """)

    /// Forgets those of the transactions that are from before a time, in milliseconds since 1970.
    public mutating func forget(_ transactions: TransactionRange, before time: Int64) {
        run(
            Self.forget, transactions.first.user.value, .blob(transactions.first.key), transactions.last.user.value,
            .blob(transactions.last.key), .integer(time))
    }
}

/// Where a transaction stands among all: they are in the order of their users and keys, not of their time.
public struct TransactionPlace: Sendable {
    public let user: UserNID
    public let key: [UInt8]
}

/// Transactions that stand next to one another.
public struct TransactionRange: Sendable {
    public let first: TransactionPlace
    public let last: TransactionPlace
    /// When the oldest of them was, in milliseconds since 1970.
    public let oldest: Int64
}

extension Database {
    private static let find = Statement(
        "SELECT event_id FROM transactions WHERE user_nid = $1 AND transaction_key = $2")

    /// The event that a client's transaction made before.
    public func event(ofTransaction key: [UInt8], by user: UserNID) async throws -> EventID? {
        try await readOnce { reader in
            try await reader.first(Self.find, [user.value, .blob(key)]) {
                PackedEventID.unpack($0.blob(0))
            }
        }
    }

    private static let next = Statement(
        """
        SELECT user_nid, transaction_key, created_ts FROM transactions WHERE (user_nid, transaction_key) > ($1, $2)
        ORDER BY user_nid, transaction_key LIMIT $3
        """)

    /// The transactions behind a place, or the first ones, `limit` at most; nil if there are none.
    public func transactions(after place: TransactionPlace?, limit: Int) async throws -> TransactionRange? {
        let values: [SQLValue] = [
            place?.user.value ?? .integer(.min), .blob(place?.key ?? []), .integer(Int64(limit)),
        ]
        let found = try await readOnce { reader in
            try await reader.query(Self.next, values) {
                (place: TransactionPlace(user: UserNID($0.integer(0)), key: $0.blob(1)), time: $0.integer(2))
            }
        }
        guard let first = found.first, let last = found.last else { return nil }
        return TransactionRange(
            first: first.place, last: last.place, oldest: found.lazy.map(\.time).min() ?? first.time)
    }
}
