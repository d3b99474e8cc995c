import Database
import MatrixCore

/// The application services of the configuration: who they are, for whom they may speak, and which names are theirs
/// (Application Service API, "Client-Server API Extensions").
public final class Appservices: Sendable {
    private let database: Database
    private let serverName: ServerName
    private let registrations: [AppserviceRegistration]
    /// By the hash of the token with which they speak to us: what a stranger sends is never compared with a token byte by byte.
    private let byToken: [[UInt8]: AppserviceRegistration]

    init(_ registrations: [AppserviceRegistration], database: Database, serverName: ServerName) {
        self.registrations = registrations
        self.database = database
        self.serverName = serverName
        byToken = Dictionary(registrations.map { (AccessTokens.hash($0.asToken), $0) }) { first, _ in first }
    }

    /// Makes the accounts of those for whom application services speak when they name nobody.
    func prepare(at now: Int64) async throws {
        for registration in registrations {
            guard let sender = sender(of: registration) else {
                throw DatabaseError.unusable(
                    "appservices: “\(registration.senderLocalpart)”, the sender_localpart of \(registration.id), is no user name."
                )
            }
            if try await database.account(of: sender) != nil { continue }
            var write = Write()
            write.insertAccount(
                try await database.number(ofUser: sender), passwordHash: nil, admin: false, at: now)
            // Another node may have made it.
            do { try await database.write(write) } catch DatabaseError.constraint { continue }
        }
    }

    private func sender(of registration: AppserviceRegistration) -> UserID? {
        UserID(localpart: registration.senderLocalpart, server: serverName)
    }

    private func owns(_ user: UserID, _ registration: AppserviceRegistration) -> Bool {
        user.server == serverName
            && (sender(of: registration) == user || registration.users.contains { $0.pattern.matches(user.string) })
    }

    // MARK: - Identity assertion

    /// The ID of the application service whose token this is.
    public func id(of token: String) -> String? { byToken[AccessTokens.hash(token)]?.id }

    /// For whom an application service speaks with a request.
    public struct Speaker: Sendable {
        public let requester: Requester
        /// Whether limits on how often somebody may ask are none for it.
        public let isUnlimited: Bool
    }

    /// Whether a token is an application service's.
    public func knows(_ token: String) -> Bool { !byToken.isEmpty && byToken[AccessTokens.hash(token)] != nil }

    /// - Parameters:
    ///   - user: the user it names in the request; nil: the one of its registration.
    ///   - device: the device it names.
    /// - Returns: nil if the token is no application service's.
    /// - Throws: `M_FORBIDDEN` for users that aren't its own or don't exist, `M_UNKNOWN_DEVICE`.
    public func speaker(for token: String, user: String?, device: String?) async throws -> Speaker? {
        guard let registration = byToken[AccessTokens.hash(token)] else { return nil }
        let own = sender(of: registration)
        guard let userID = user.map({ UserID($0) }) ?? own, owns(userID, registration) else {
            throw MatrixError.forbidden("The application service \(registration.id) may not speak for this user.")
        }
        guard let account = try await database.account(of: userID), !account.isDeactivated else {
            throw MatrixError.forbidden("There is no user \(userID); the application service must register it first.")
        }
        if let device {
            let known = try await database.deviceIDs(of: account.nid)
            guard known.contains(where: { $0.hasSameBytes(as: device) }) else {
                throw MatrixError(.unknownDevice, "\(userID) has no such device.")
            }
        }
        return Speaker(
            requester: Requester(
                nid: account.nid, userID: userID, deviceID: device ?? "", standing: account.standing,
                appservice: registration.id),
            isUnlimited: userID == own || !registration.isRateLimited)
    }

    /// Why a ping fails (Application Service API, "Pinging"): nothing is sent to application services yet.
    public func pingFailure(_ id: String, by requester: Requester) -> MatrixError {
        guard let own = requester.appservice, own.hasSameBytes(as: id) else {
            return MatrixError.forbidden("Only the application service itself can ask to be pinged.")
        }
        guard registration(own)?.url != nil else {
            return MatrixError(.urlNotSet, "The registration of this application service has no URL.")
        }
        return MatrixError(.connectionFailed, "This server doesn't connect to application services yet.")
    }

    // MARK: - Namespaces

    private static let exclusive = MatrixError(.exclusive, "This name is kept for an application service.")

    private func registration(_ id: String?) -> AppserviceRegistration? {
        id.flatMap { id in registrations.first { $0.id == id } }
    }

    /// Application services make users within their namespaces only, and nobody else makes users within exclusive ones.
    ///
    /// - Parameter id: of the application service that asks; nil for everybody else.
    /// - Throws: `M_EXCLUSIVE`.
    func checkMayCreate(_ user: UserID, by id: String?) throws {
        if let own = registration(id), !owns(user, own) { throw Self.exclusive }
        for other in registrations where other.id != id {
            let isTaken =
                sender(of: other) == user
                || other.users.contains { $0.isExclusive && $0.pattern.matches(user.string) }
            if isTaken { throw Self.exclusive }
        }
    }

    /// The same for room aliases.
    func checkMayChange(_ alias: RoomAlias, by id: String?) throws {
        if let own = registration(id), !own.aliases.contains(where: { $0.pattern.matches(alias.string) }) {
            throw Self.exclusive
        }
        for other in registrations where other.id != id {
            if other.aliases.contains(where: { $0.isExclusive && $0.pattern.matches(alias.string) }) {
                throw Self.exclusive
            }
        }
    }
}
