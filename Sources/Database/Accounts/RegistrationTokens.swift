/// A token that lets people register, so many times, until then.
public struct RegistrationToken: Sendable {
    public let token: String
    /// nil: as often as one likes.
    public let usesAllowed: Int64?
    public let completed: Int64
    /// Milliseconds since 1970; nil: for ever.
    public let expiresTS: Int64?

    public init(token: String, usesAllowed: Int64?, completed: Int64, expiresTS: Int64?) {
        self.token = token
        self.usesAllowed = usesAllowed
        self.completed = completed
        self.expiresTS = expiresTS
    }

    /// Whether somebody may still register with it.
    public func isValid(at time: Int64) -> Bool {
        (usesAllowed.map { completed < $0 } ?? true) && (expiresTS.map { time < $0 } ?? true)
    }
}

extension Database {
    private static let columns = "token, uses_allowed, completed, expires_ts"
    private static let all = Statement("SELECT \(columns) FROM registration_tokens ORDER BY created_ts, token")
    private static let one = Statement("SELECT \(columns) FROM registration_tokens WHERE token = $1")

    private static func token(_ row: any Row) -> RegistrationToken {
        RegistrationToken(
            token: row.text(0), usesAllowed: row.optionalInteger(1), completed: row.integer(2),
            expiresTS: row.optionalInteger(3))
    }

    public func registrationTokens() async throws -> [RegistrationToken] {
        try await read { try await $0.query(Self.all, [], Self.token) }
    }

    public func registrationToken(_ token: String) async throws -> RegistrationToken? {
        try await readOnce { try await $0.first(Self.one, [.text(token)], Self.token) }
    }
}

extension Write {
    private static let insert = Statement(
        "INSERT INTO registration_tokens (token, uses_allowed, expires_ts, created_ts) VALUES ($1, $2, $3, $4)")
    private static let use = Statement(
        """
        UPDATE registration_tokens SET completed = completed + 1 WHERE token = $1
        AND (uses_allowed IS NULL OR completed < uses_allowed) AND (expires_ts IS NULL OR expires_ts > $2)
        """)
    private static let revoke = Statement("DELETE FROM registration_tokens WHERE token = $1")

    public mutating func insertRegistrationToken(
        _ token: String, usesAllowed: Int64?, expiresTS: Int64?, at time: Int64
    ) {
        run(Self.insert, .text(token), .optional(usesAllowed), .optional(expiresTS), .integer(time))
    }

    /// Uses the token once; fails as a conflict if it is used up, expired or gone.
    public mutating func useRegistrationToken(_ token: String, at time: Int64) {
        expect(1, otherwise: "the registration token is used up", Self.use, .text(token), .integer(time))
    }

    public mutating func revokeRegistrationToken(_ token: String) {
        expect(1, otherwise: "there is no such registration token", Self.revoke, .text(token))
    }
}
