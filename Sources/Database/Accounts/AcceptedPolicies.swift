extension Database {
    private static let find = Statement(
        "SELECT policy, version FROM accepted_policies WHERE user_nid = $1 ORDER BY policy, version")

    /// The policies that a user has accepted, with their versions.
    public func acceptedPolicies(of user: UserNID) async throws -> [(policy: String, version: String)] {
        try await readOnce { try await $0.query(Self.find, [user.value]) { ($0.text(0), $0.text(1)) } }
    }
}

extension Write {
    private static let accept = Statement(
        """
        INSERT INTO accepted_policies (user_nid, policy, version, accepted_ts) VALUES ($1, $2, $3, $4)
        ON CONFLICT DO NOTHING
        """)

    public mutating func acceptPolicy(_ policy: String, version: String, by user: UserNID, at time: Int64) {
        run(Self.accept, user.value, .text(policy), .text(version), .integer(time))
    }
}
