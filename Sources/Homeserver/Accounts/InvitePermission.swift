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
