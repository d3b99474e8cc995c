extension Database {
    private static let fields = Statement("SELECT field, value FROM profile_fields WHERE user_nid = $1 ORDER BY field")

    /// The fields of a user's profile besides name and picture, as JSON.
    public func profileFields(of user: UserNID) async throws -> [(field: String, value: [UInt8])] {
        try await readOnce { try await $0.query(Self.fields, [user.value]) { ($0.text(0), $0.blob(1)) } }
    }
}

extension Write {
    private static let put = Statement(
        """
        INSERT INTO profile_fields (user_nid, field, value) VALUES ($1, $2, $3)
        ON CONFLICT (user_nid, field) DO UPDATE SET value = excluded.value
        """)
    private static let delete = Statement("DELETE FROM profile_fields WHERE user_nid = $1 AND field = $2")

    public mutating func putProfileField(_ field: String, value: [UInt8], of user: UserNID) {
        run(Self.put, user.value, .text(field), .blob(value))
    }

    private static let deleteAll = Statement("DELETE FROM profile_fields WHERE user_nid = $1")

    public mutating func deleteProfileFields(of user: UserNID) { run(Self.deleteAll, user.value) }

    public mutating func deleteProfileField(_ field: String, of user: UserNID) {
        run(Self.delete, user.value, .text(field))
    }
}
