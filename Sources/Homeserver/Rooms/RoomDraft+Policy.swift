import Database
import MatrixCore

/// Rooms that have a policy server (Server-Server API, "Policy Servers").
extension RoomDraft {
    /// An event of this server that the room's policy server has not signed yet.
    struct Unsigned {
        /// Where it stands among those that are added.
        let index: Int
        let policy: RoomPolicy
    }

    /// The policy server of the room as it is now; nil if it has none, or one that is not in the room.
    mutating func policy() async throws -> RoomPolicy? {
        guard let policy = RoomPolicy(event: try await state(.policy)) else { return nil }
        let server = try await context.database.number(ofServer: policy.server)
        let joined = try await context.database.joinedMembers(of: server, in: record.nid, reader)
        return joined > 0 ? policy : nil
    }

    /// Whether nobody who is asked about it speaks against the event.
    mutating func isRecommended(_ event: Event) async throws -> Bool {
        try await policy()?.recommends(event) ?? true
    }

    /// Puts an event that has got a further signature in the place of the same one without.
    mutating func replace(at index: Int, with signed: Event) {
        let old = added[index]
        added[index] = Added(
            event: old.event.with(json: signed.json, cuts: signed.clientCuts), parsed: signed, placing: old.placing,
            memberships: old.memberships, currentState: old.currentState, notifications: old.notifications,
            stickyUntil: old.stickyUntil)
    }
}
