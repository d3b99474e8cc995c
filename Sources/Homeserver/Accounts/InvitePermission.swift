import Database
import MatrixCore

/// Who may be invited (Client-Server API, "Invite permission"): some want no invitations.
struct InvitePermission: Sendable {
    let database: Database

    private static let type = "m.invite_permission_config"

    /// Whether a user of this server wants no invitations. One point read.
    func isBlocked(for user: UserNID) async throws -> Bool {
        guard let content = try await database.accountData(of: user, room: nil, type: Self.type) else { return false }
        return try JSONDocument(parsing: content, limits: .own).root["default_action"]?.isString("block") ?? false
    }

    /// - Throws: `M_INVITE_BLOCKED`.
    func check(_ user: UserID) async throws {
        guard let nid = try await database.existingNumber(ofUser: user), try await isBlocked(for: nid) else {
            return
        }
        throw MatrixError(.inviteBlocked, "\(user) wants no invitations.")
    }
}

/// Which invitations a user wants to see: none at all, or those of people who aren't ignored.
struct WantedInvitations: Sendable {
    private let isBlocked: Bool
    private let ignored: Set<UserNID>

    init(of user: UserNID, _ context: RoomContext) async throws {
        isBlocked = try await InvitePermission(database: context.database).isBlocked(for: user)
        ignored = try await context.ignored.list(of: user)
    }

    /// - Parameter read: reads events by their numbers; only where somebody is ignored.
    func contain(
        _ invitation: RoomMembership, _ read: ([EventNID]) async throws -> [StoredEvent]
    ) async throws -> Bool {
        if isBlocked { return false }
        if ignored.isEmpty { return true }
        return try await read([invitation.event]).first.map { !ignored.contains($0.sender) } ?? true
    }
}
