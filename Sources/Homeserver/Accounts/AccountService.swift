import Database
import Logging
import MatrixCore
import Synchronization

/// Accounts, and the sessions of their devices.
public final class AccountService: Sendable {
    /// Who may make an account by themselves.
    public enum RegistrationMode: Sendable {
        case open, token, closed
    }

    let database: Database
    let serverName: ServerName
    let registration: RegistrationMode
    let sharedSecret: String?
    let surroundings: Surroundings
    let passwords: BlockingPool
    public let tokens: AccessTokens
    /// Nonces of the shared-secret registration and when they end. The lock protects the table alone.
    let nonces = Mutex<[String: Int64]>([:])
    /// A hash that no password fits, verified when the account is unknown: the answer takes as long.
    let decoy: String

    init(
        database: Database, serverName: ServerName, registration: RegistrationMode, sharedSecret: String?,
        surroundings: Surroundings, passwords: BlockingPool
    ) throws {
        self.database = database
        self.serverName = serverName
        self.registration = registration
        self.sharedSecret = sharedSecret
        self.surroundings = surroundings
        self.passwords = passwords
        tokens = AccessTokens(database: database, surroundings: surroundings)
        decoy = try PasswordHash.make(surroundings.randomText(24), salt: surroundings.randomBytes(16))
    }

    /// A session that has just begun.
    public struct Session: Sendable {
        public let userID: UserID
        public let deviceID: String
        public let accessToken: String
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
        localpart: String?, password: String?, admin: Bool, extra: (inout Write) -> Void = { _ in }
    ) async throws -> (UserNID, UserID) {
        let localpart = (localpart ?? surroundings.randomText(12, from: "abcdefghijkmnpqrstuvwxyz23456789"))
            .lowercased()
        guard let userID = UserID(localpart: localpart, server: serverName) else {
            throw MatrixError(
                .invalidUsername,
                "A user name consists of the letters a to z, digits and . _ = - / +, and is not too long.")
        }
        let hash = try await password.asyncMap { try await self.hash($0) }
        if try await database.account(of: userID) != nil { throw Self.inUse }
        let nid = try await database.number(ofUser: userID)
        var write = Write()
        write.insertAccount(nid, passwordHash: hash, admin: admin, at: surroundings.now())
        extra(&write)
        do { try await database.write(write) } catch DatabaseError.constraint { throw Self.inUse }
        return (nid, userID)
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

    /// Whether a user name is free and allowed (`GET /register/available`).
    public func checkAvailable(_ localpart: String) async throws {
        guard let userID = UserID(localpart: localpart.lowercased(), server: serverName) else {
            throw MatrixError(
                .invalidUsername,
                "A user name consists of the letters a to z, digits and . _ = - / +, and is not too long.")
        }
        if try await database.account(of: userID) != nil { throw Self.inUse }
    }

    // MARK: - Sessions

    /// Checks a password.
    ///
    /// - Throws: `M_FORBIDDEN`, with the same words and after the same time whether the account or the password is
    ///   wrong; `M_USER_DEACTIVATED` only to whom it could be told anyway.
    public func logIn(
        user: String, password: String, deviceID: String?, displayName: String?
    ) async throws -> Session {
        let wrong = MatrixError.forbidden("The user name or the password is wrong.")
        let userID = user.utf8.first == UInt8(ascii: "@") ? UserID(user) : UserID("@\(user.lowercased()):\(serverName)")
        var account: Account?
        if let userID, userID.server == serverName, password.utf8.count <= Self.longestPassword {
            account = try await database.account(of: userID)
            if account == nil {
                account = try await database.account(of: UserID(unchecked: userID.string.lowercased()))
            }
        }
        let hash = account?.passwordHash ?? decoy
        let fits = try await passwords.run { PasswordHash.verify(password, hash) }
        guard fits, let account, account.passwordHash != nil, !account.isDeactivated else { throw wrong }
        return try await begin(account.nid, account.userID, deviceID: deviceID, displayName: displayName)
    }

    /// Gives a device of the user, new or known, an access token.
    func begin(
        _ nid: UserNID, _ userID: UserID, deviceID: String?, displayName: String?
    ) async throws -> Session {
        if let deviceID, DeviceID(deviceID) == nil {
            throw MatrixError.invalidParam("The device ID is empty, too long, or has control characters in it.")
        }
        if let deviceID { try await checkIsNoCrossSigningKey(deviceID, of: nid) }
        let device = deviceID ?? surroundings.randomText(10, from: "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
        let (token, hash) = tokens.make()
        var write = Write()
        write.logIn(
            nid, deviceID: device, displayName: displayName.map { String($0.prefix(100)) }, tokenHash: hash,
            at: surroundings.now())
        try await database.write(write)
        // The device may have had another token before.
        if deviceID != nil { tokens.forgetAll() }
        return Session(userID: userID, deviceID: device, accessToken: token)
    }

    /// Ends the requester's session; the device goes with it (`POST /logout`).
    public func logOut(_ requester: Requester) async throws {
        var write = Write()
        write.deleteDevice(requester.deviceID, of: requester.nid)
        try await database.announceDevices(of: requester.nid, in: &write)
        try await database.write(write)
        tokens.forgetAll()
    }

    /// Ends all sessions of the requester (`POST /logout/all`).
    public func logOutAll(_ requester: Requester) async throws {
        var write = Write()
        write.deleteAllDevices(of: requester.nid)
        try await database.announceDevices(of: requester.nid, in: &write)
        try await database.write(write)
        tokens.forgetAll()
    }
}

extension Optional where Wrapped: Sendable {
    func asyncMap<T>(_ transform: (Wrapped) async throws -> T) async rethrows -> T? {
        guard let value = self else { return nil }
        return try await transform(value)
    }
}
