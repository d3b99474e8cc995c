import Database
import MatrixCore

/// What other servers tell of rooms that this one isn't in: that an invitation was taken back, or a knock turned down.
struct OutsideMemberships: Sendable {
    let federated: FederatedRooms
    let intake: EventIntake
    private var database: Database { federated.database }
    private var context: RoomContext { federated.context }

    /// Ends what the events end.
    ///
    /// The room's state isn't here to authorise them by. So those are believed who have told of the room before: the server of
    /// whoever invited, and the one by which the user has knocked.
    ///
    /// - Returns: for each event that could be read whether it was taken; nil if the room is no such room.
    func end(_ views: [JSONView], in roomID: RoomID, by server: ServerName) async throws -> [(EventID, String?)]? {
        guard let room = try await federated.rooms.room(roomID), try await !federated.isResident(room) else {
            return nil
        }
        var results: [(EventID, String?)] = []
        for case .success(let event) in try await intake.check(views, in: roomID, room.version) {
            let isTaken = try await end(event, in: room, by: server)
            results.append((event.eventID, isTaken ? nil : "This server is not in the room."))
        }
        return results
    }

    private func end(_ event: Event, in room: Room, by server: ServerName) async throws -> Bool {
        guard event.type == "m.room.member", event.sender.server == server,
            let membership = Membership(event.content["membership"]), membership == .leave || membership == .ban,
            let user = event.stateKey.flatMap({ UserID($0) }), user.server == context.serverName,
            let nid = try await database.existingNumber(ofUser: user)
        else { return false }
        let (current, via) = try await database.read { reader in
            (
                try await self.database.membership(of: nid, in: room.nid, reader),
                try await self.database.strippedState(of: room.nid, for: nid, reader)?.via
            )
        }
        guard let current, current.membership == .invite || current.membership == .knock else { return false }
        var believed = [via].compactMap { $0 }
        if current.membership == .invite, let stored = try await database.events([current.event]).first,
            let inviter = try await database.user(stored.sender)
        {
            believed.append(inviter.server)
        }
        guard believed.contains(server) else { return false }
        try await federated.rooms.perform(in: room) { draft in
            try await draft.endOutside(user: nid, by: event, StoredMembership(membership))
        }
        return true
    }
}
