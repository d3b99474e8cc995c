extension Database {
    private static let find = Statement("SELECT filter FROM filters WHERE user_nid = $1 AND filter_nid = $2")
    private static let same = Statement("SELECT filter_nid FROM filters WHERE user_nid = $1 AND filter = $2")
    private static let insert = Statement(
        """
        INSERT INTO filters (user_nid, filter_nid, filter)
        SELECT $1, newest.last + 1, $2
        FROM (SELECT coalesce(max(filter_nid), 0) AS last FROM filters WHERE user_nid = $1) AS newest
        WHERE newest.last < $3 RETURNING filter_nid
        """)

    /// A filter that a user uploaded, as canonical JSON.
    public func filter(_ number: Int64, of user: UserNID) async throws -> [UInt8]? {
        try await readOnce { try await $0.first(Self.find, [user.value, .integer(number)]) { $0.blob(0) } }
    }

    /// Keeps a filter and returns its number; the same filter keeps its number.
    ///
    /// - Returns: nil if the user has so many already.
    public func putFilter(_ filter: [UInt8], of user: UserNID, most: Int64) async throws -> Int64? {
        for _ in 0..<10 {
            let known = try await readOnce { reader in
                try await reader.first(Self.same, [user.value, .blob(filter)]) { $0.integer(0) }
            }
            if let known { return known }
            var write = Write()
            let place = write.returning(Self.insert, user.value, .blob(filter), .integer(most))
            do {
                guard case .integer(let number)? = try await self.write(write).rows[place].first?.first else {
                    return nil
                }
                return number
            } catch DatabaseError.constraint {
                // Another node has given out the same number.
            }
        }
        throw DatabaseError.conflict("the user's filters change too fast")
    }
}
