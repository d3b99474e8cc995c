import MatrixCore

/// What the command line does to a server, whether that runs or not.
///
/// A user is named by localpart or by full identifier. All functions throw `MatrixError` for what the person at the
/// command line can mend.
public protocol AdminService: Sendable {
    func createUser(localpart: String, password: String, admin: Bool) async throws -> UserID
    /// Makes the user an administrator.
    func promote(_ user: String) async throws -> UserID
    func users() async throws -> [AdminUser]
    /// Sets the password and ends all sessions.
    func setPassword(_ password: String, of user: String) async throws -> UserID
    func deactivate(_ user: String) async throws -> UserID
    /// - Parameters:
    ///   - token: made up when nil.
    ///   - usesAllowed: how many accounts it is good for; nil: any number.
    ///   - expiresTS: when it ends, in milliseconds since 1970; nil: never.
    func createToken(_ token: String?, usesAllowed: Int64?, expiresTS: Int64?) async throws -> AdminToken
    func tokens() async throws -> [AdminToken]
    func revokeToken(_ token: String) async throws
}

/// An account as operators see it.
public struct AdminUser: Sendable {
    public let userID: UserID
    public let isAdmin: Bool
    public let isDeactivated: Bool
    /// Milliseconds since 1970.
    public let createdTS: Int64

    public init(userID: UserID, isAdmin: Bool, isDeactivated: Bool, createdTS: Int64) {
        self.userID = userID
        self.isAdmin = isAdmin
        self.isDeactivated = isDeactivated
        self.createdTS = createdTS
    }
}

/// A registration token as operators see it.
public struct AdminToken: Sendable {
    public let token: String
    public let usesAllowed: Int64?
    /// How many accounts were made with it.
    public let completed: Int64
    /// Milliseconds since 1970.
    public let expiresTS: Int64?

    public init(token: String, usesAllowed: Int64?, completed: Int64, expiresTS: Int64?) {
        self.token = token
        self.usesAllowed = usesAllowed
        self.completed = completed
        self.expiresTS = expiresTS
    }
}
