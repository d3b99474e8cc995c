import Database
import MatrixCore

/// What suspended accounts may send (Client-Server API, "Account suspension"): redactions of their own events.
enum SuspensionRules {
    /// - Throws: `M_USER_SUSPENDED`.
    static func checkMaySend(
        _ type: String, redacts: EventID?, by requester: Requester, _ database: Database
    ) async throws {
        guard requester.isSuspended else { return }
        guard type == "m.room.redaction", let redacts, let event = try await database.event(redacts),
            event.sender == requester.nid
        else { throw MatrixError.userSuspended }
    }
}
