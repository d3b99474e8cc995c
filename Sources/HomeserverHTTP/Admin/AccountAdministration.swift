import Database
import Homeserver
import MatrixCore

/// The command line's work, done by the homeserver's services.
public struct AccountAdministration: AdminService {
    let homeserver: Homeserver

    public init(_ homeserver: Homeserver) { self.homeserver = homeserver }

    public func createUser(localpart: String, password: String, admin: Bool) async throws -> UserID {
        try await homeserver.accounts.create(localpart: localpart, password: password, admin: admin)
    }

    public func promote(_ user: String) async throws -> UserID {
        try await homeserver.accounts.setAdmin(true, of: user)
    }

    public func users() async throws -> [AdminUser] {
        try await homeserver.accounts.accounts().map {
            AdminUser(userID: $0.userID, isAdmin: $0.isAdmin, isDeactivated: $0.isDeactivated, createdTS: $0.createdTS)
        }
    }

    public func setPassword(_ password: String, of user: String) async throws -> UserID {
        try await homeserver.accounts.setPassword(password, of: user)
    }

    public func deactivate(_ user: String) async throws -> UserID { try await homeserver.deactivation.deactivate(user) }

    public func createToken(_ token: String?, usesAllowed: Int64?, expiresTS: Int64?) async throws -> AdminToken {
        AdminToken(
            try await homeserver.accounts.createRegistrationToken(token, usesAllowed: usesAllowed, expiresTS: expiresTS)
        )
    }

    public func tokens() async throws -> [AdminToken] {
        try await homeserver.accounts.registrationTokens().map { AdminToken($0) }
    }

    public func revokeToken(_ token: String) async throws {
        try await homeserver.accounts.revokeRegistrationToken(token)
    }
}

extension AdminToken {
    fileprivate init(_ token: RegistrationToken) {
        self.init(
            token: token.token, usesAllowed: token.usesAllowed, completed: token.completed, expiresTS: token.expiresTS)
    }
}
