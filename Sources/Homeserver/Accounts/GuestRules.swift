import Database
import MatrixCore

/// Where guests may be (Client-Server API, "Guest Access"): only in rooms whose `m.room.guest_access` says `can_join`.
enum GuestRules {
    static let key = StateKey("m.room.guest_access", "")

    static func admits(_ content: JSONView?) -> Bool { content?["guest_access"]?.string == "can_join" }

    /// - Throws: `M_GUEST_ACCESS_FORBIDDEN`.
    static func checkMayJoin(_ requester: Requester, _ draft: inout RoomDraft) async throws {
        guard requester.isGuest else { return }
        guard admits(try await draft.state(key)?.content) else {
            throw MatrixError(.guestAccessForbidden, "Guests can't join this room.")
        }
    }
}

extension MembershipService {
    /// Has the guests leave a room that doesn't want them any more, as the specification says a server must.
    public func removeGuests(from roomID: RoomID) async throws {
        guard let room = try await rooms.room(roomID) else { return }
        let mayStay = try await rooms.perform(in: room) { draft in
            GuestRules.admits(try await draft.state(GuestRules.key)?.content)
        }
        if mayStay { return }
        let guests = try await database.read { try await self.database.guests(in: room.nid, $0) }
        for (nid, userID) in guests {
            try await leave(roomID, reason: nil, by: Requester(nid: nid, userID: userID, deviceID: ""))
        }
    }
}
