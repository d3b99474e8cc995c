import Database
import MatrixCore

/// The state that somebody who is not in a room is shown of it (Client-Server API, "Stripped state").
enum StrippedState {
    /// Writes an array: the state before the user was invited or knocked, and the user's own member event. Of whoever was neither
    /// invited nor had knocked, that event alone.
    static func write(
        _ membership: RoomMembership, _ room: Room, _ events: ClientEvents, into writer: inout JSONWriter,
        _ reader: any Reader
    ) async throws {
        let database = events.context.database
        guard let own = try await database.events([membership.event], reader).first else {
            throw DatabaseError.corrupt("member event \(membership.event) is missing")
        }
        let tree = StateTree(rows: database.stateRows, room: room.nid)
        var numbers: [EventNID] = []
        var invitation: StoredEvent? = own
        if membership.membership != .invite, membership.membership != .knock {
            let replaced = try await database.events(own.replaces.map { [$0] } ?? [], reader).first
            let before = try replaced.flatMap {
                Membership(try events.context.parse($0, room.version).content["membership"])
            }
            invitation = before == .invite || before == .knock ? replaced : nil
        }
        if let before = invitation?.stateBefore {
            let keys = RoomDraft.strippedTypes.map { StateKey($0) }
            let known = try await database.existingNumbers(ofStateKeys: keys)
            for key in keys {
                guard let number = known[key], let event = try await tree.event(for: number, in: before, reader) else {
                    continue
                }
                numbers.append(event)
            }
        }
        writer.beginArray()
        if own.stateBefore == nil, let user = own.stateKey {
            try await writeTold(of: room, to: user, database, into: &writer, reader)
        }
        for stored in try await database.events(numbers, reader) + [own] {
            let event = try events.context.parse(stored, room.version)
            events.writeStripped(stored.redactedBy == nil ? event : event.redacted(), into: &writer)
        }
        writer.endArray()
    }

    /// Of a room that this server isn't in another one has told it, with the invitation or in answer to the knock.
    private static func writeTold(
        of room: Room, to user: StateKeyNID, _ database: Database, into writer: inout JSONWriter, _ reader: any Reader
    ) async throws {
        guard let name = try await database.stateKey(user).flatMap({ UserID($0.key) }),
            let nid = try await database.existingNumber(ofUser: name),
            let told = try await database.strippedState(of: room.nid, for: nid, reader),
            let events = try? JSONDocument(parsing: told.events, limits: .own)
        else { return }
        for event in events.root.elements { writer.raw(event.raw) }
    }
}
