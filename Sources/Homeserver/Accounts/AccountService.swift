import Database
import Logging
import MatrixCore
import Synchronization

/// Accounts, and the sessions of their devices.
public final class AccountService: Sendable {
    let database: Database
    let serverName: ServerName
    let surroundings: Surroundings
    let passwords: BlockingPool
    let settings: Configuration.Registration
    let appservices: Appservices
    let rateLimits: RateLimiter
    public let tokens: AccessTokens
    /// Nonces of the shared-secret registration and when they end. The lock protects the table alone.
    let nonces = Mutex<[String: Int64]>([:])
    /// A hash that no password fits, verified when the account is unknown: the answer takes as long.
    let decoy: String

    init(
        database: Database, serverName: ServerName, settings: Configuration.Registration, appservices: Appservices,
        surroundings: Surroundings, passwords: BlockingPool, rateLimits: RateLimiter
    ) {
        self.rateLimits = rateLimits
        self.database = database
        self.serverName = serverName
        self.settings = settings
        self.appservices = appservices
        self.surroundings = surroundings
        self.passwords = passwords
        tokens = AccessTokens(database: database, surroundings: surroundings)
        decoy = PasswordHash.decoy(salt: surroundings.randomBytes(16), hash: surroundings.randomBytes(32))
    }

    /// A session that has just begun.
    public struct Session: Sendable {
        public let userID: UserID
        public let deviceID: String
        public let accessToken: String
        /// The token for the next access token, and the milliseconds until it is needed, if the client knows what to do with
        /// it.
        public var refreshToken: String?
        public var expiresInMS: Int64?
    }

    /// What a client says of itself when a session begins.
    public struct SessionRequest: Sendable {
        public var deviceID: String?
        public var displayName: String?
        /// Whether it can renew its access token.
        public var refreshes: Bool

        public init(deviceID: String? = nil, displayName: String? = nil, refreshes: Bool = false) {
            self.deviceID = deviceID
            self.displayName = displayName
            self.refreshes = refreshes
        }

        /// - Throws: `M_INVALID_PARAM` if there can be no such device.
        func check() throws {
            guard deviceID.map({ DeviceID($0) != nil }) ?? true else {
                throw MatrixError.invalidParam("The device ID is empty, too long, or has control characters in it.")
            }
        }
    }

    /// The most bytes of a password: more would only cost time.
    static let longestPassword = 1_024

    /// Makes an account.
    ///
    /// - Parameters:
    ///   - localpart: the name before the colon; made up when nil.
    ///   - extra: what must happen together with it.
    /// - Throws: `M_INVALID_USERNAME`, `M_USER_IN_USE`, `M_INVALID_PARAM`.
    @discardableResult
    func createAccount(
        localpart: String?, password: String?, admin: Bool, standing: AccountStanding = [],
        extra: (inout Write, UserNID) -> Void = { _, _ in }
    ) async throws -> (UserNID, UserID) {
        let localpart = (localpart ?? surroundings.randomText(12, from: "abcdefghijkmnpqrstuvwxyz23456789"))
            .lowercased()
        let userID = try userID(localpart)
        let hash = try await password.asyncMap { try await self.hash($0) }
        if try await database.account(of: userID) != nil { throw Self.inUse }
        let nid = try await database.number(ofUser: userID)
        var write = Write()
        write.insertAccount(nid, passwordHash: hash, admin: admin, standing: standing, at: surroundings.now())
        write.putUserWords(UserDirectoryService.words(userID, displayName: nil), of: nid)
        extra(&write, nid)
        do { try await database.write(write) } catch DatabaseError.constraint { throw Self.inUse }
        return (nid, userID)
    }

    /// Verifies a password on the pool, so many wrong ones of an account in a time: guessing is bounded from however many addresses
    /// it comes. Right ones don't count.
    ///
    /// - Parameter user: as whom it was given; also one who doesn't exist.
    /// - Throws: `M_LIMIT_EXCEEDED`.
    func verify(_ password: String, _ hash: String, of user: String) async throws -> Bool {
        try rateLimits.take(.password, for: user)
        let fits = try await passwords.run { PasswordHash.verify(password, hash) }
        if fits { rateLimits.giveBack(.password, for: user) }
        return fits
    }

    static let inUse = MatrixError(.userInUse, "This user name is taken; choose another one.")

    func hash(_ password: String) async throws -> String {
        guard !password.isEmpty else { throw MatrixError(.weakPassword, "The password is empty.") }
        guard password.utf8.count <= Self.longestPassword else {
            throw MatrixError.invalidParam("The password is longer than \(Self.longestPassword) bytes.")
        }
        let salt = surroundings.randomBytes(16)
        return try await passwords.run { try PasswordHash.make(password, salt: salt) }
    }

    private func userID(_ localpart: String) throws -> UserID {
        guard let userID = UserID(localpart: localpart, server: serverName) else {
            throw MatrixError(
                .invalidUsername,
                "A user name consists of the letters a to z, digits and . _ = - / +, and is not too long.")
        }
        return userID
    }

    /// Whether a user name is free and allowed (`GET /register/available`).
    ///
    /// - Parameter appservice: the ID of the application service that asks.
    /// - Throws: `M_INVALID_USERNAME`, `M_EXCLUSIVE`, `M_USER_IN_USE`.
    public func checkAvailable(_ localpart: String, by appservice: String? = nil) async throws {
        let userID = try userID(localpart.lowercased())
        try appservices.checkMayCreate(userID, by: appservice)
        if try await database.account(of: userID) != nil { throw Self.inUse }
    }
}

extension Optional where Wrapped: Sendable {
    func asyncMap<T>(_ transform: (Wrapped) async throws -> T) async rethrows -> T? {
        guard let value = self else { return nil }
        return try await transform(value)
    }
}
