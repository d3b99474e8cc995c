import Database
import MatrixCore

/// What whoever runs the server does with accounts: behind the command line and the administration API.
extension AccountService {
    /// An account as operators see it.
    public struct AccountSummary: Sendable {
        public let userID: UserID
        public let isAdmin: Bool
        public let isDeactivated: Bool
        public let isLocked: Bool
        public let isSuspended: Bool
        public let createdTS: Int64
    }

    func account(named name: String) async throws -> Account {
        let userID = name.utf8.first == UInt8(ascii: "@") ? UserID(name) : UserID("@\(name):\(serverName)")
        guard let userID, userID.server == serverName, let account = try await database.account(of: userID) else {
            throw MatrixError.notFound(
                "There is no account named \(name) here; `roost user list` shows those there are.")
        }
        return account
    }

    /// Makes an account; anyone who runs the server may, whatever the registration mode.
    public func create(localpart: String, password: String, admin: Bool) async throws -> UserID {
        let prefix = "@", suffix = ":\(serverName)"
        let name =
            localpart.hasPrefix(prefix) && localpart.hasSuffix(suffix)
            ? String(localpart.dropFirst(prefix.count).dropLast(suffix.count)) : localpart
        return try await createAccount(localpart: name, password: password, admin: admin).1
    }

    public func setAdmin(_ admin: Bool, of name: String) async throws -> UserID {
        let account = try await account(named: name)
        var write = Write()
        write.setAdmin(admin, of: account.nid)
        try await database.write(write)
        try await tokens.sessionsEnded()
        return account.userID
    }

    public func accounts() async throws -> [AccountSummary] {
        try await database.accounts().map {
            AccountSummary(
                userID: $0.userID, isAdmin: $0.isAdmin, isDeactivated: $0.isDeactivated,
                isLocked: $0.standing.contains(.locked), isSuspended: $0.standing.contains(.suspended),
                createdTS: $0.createdTS)
        }
    }

    /// Sets a password and ends all sessions: whoever knew the old one is out.
    public func setPassword(_ password: String, of name: String) async throws -> UserID {
        let account = try await account(named: name)
        guard !account.isDeactivated else {
            throw MatrixError(.userDeactivated, "\(account.userID) is deactivated and stays so.")
        }
        let hash = try await hash(password)
        var write = Write()
        write.setPasswordHash(hash, of: account.nid)
        write.deleteAllDevices(of: account.nid)
        try await database.announceDevices(of: account.nid, in: &write)
        try await database.write(write)
        try await tokens.sessionsEnded()
        return account.userID
    }

    // MARK: - Registration tokens

    public func registrationTokens() async throws -> [RegistrationToken] { try await database.registrationTokens() }

    /// - Parameter token: made up when nil.
    public func createRegistrationToken(
        _ token: String?, usesAllowed: Int64?, expiresTS: Int64?
    ) async throws -> RegistrationToken {
        let token = token ?? surroundings.randomText(16)
        // Registration Tokens (Client-Server API, "Token-authenticated registration"): at most 64 of these characters.
        guard (1...64).contains(token.utf8.count),
            token.utf8.allSatisfy({
                ($0 | 0x20) &- 0x61 < 26 || $0 &- 0x30 < 10 || [0x2E, 0x5F, 0x7E, 0x2D].contains($0)
            })
        else {
            throw MatrixError.invalidParam("A registration token consists of up to 64 letters, digits and . _ ~ -")
        }
        var write = Write()
        write.insertRegistrationToken(token, usesAllowed: usesAllowed, expiresTS: expiresTS, at: surroundings.now())
        do { try await database.write(write) } catch DatabaseError.constraint {
            throw MatrixError.invalidParam("There is a registration token \(token) already.")
        }
        return RegistrationToken(token: token, usesAllowed: usesAllowed, completed: 0, expiresTS: expiresTS)
    }

    public func revokeRegistrationToken(_ token: String) async throws {
        var write = Write()
        write.revokeRegistrationToken(token)
        do { try await database.write(write) } catch DatabaseError.conflict {
            throw MatrixError.notFound(
                "There is no registration token \(token); `roost token list` shows those there are.")
        }
    }
}
