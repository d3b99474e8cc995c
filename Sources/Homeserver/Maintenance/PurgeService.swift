import Database
import MatrixCore

/// Deletes rooms and old history for good, see ``Purge``.
public final class PurgeService: Sendable {
    private let rooms: RoomRegistry
    private var database: Database { rooms.database }

    private static let batch = 200

    init(rooms: RoomRegistry) { self.rooms = rooms }

    /// Deletes a room with all that belongs to it; those in it are out of it at once.
    public func purge(_ roomID: RoomID) async throws {
        let room = try await known(roomID)
        try await database.begin(Purge(room: room.nid, before: nil), at: rooms.context.surroundings.now())
        rooms.forget(room)
        try await goOn()
    }

    /// Deletes the messages of a room that are older than an event. State stays: it is what the room is, and what authorises
    /// what comes after.
    public func purgeHistory(of roomID: RoomID, before eventID: EventID) async throws {
        let room = try await known(roomID)
        guard let event = try await database.event(eventID), event.room == room.nid, let position = event.position
        else {
            throw MatrixError.notFound("The room has no such event.")
        }
        let place = Database.OrderedPlace(depth: event.orderDepth, position: position)
        try await database.begin(Purge(room: room.nid, before: place), at: rooms.context.surroundings.now())
        try await goOn()
    }

    /// Goes on with the purges that a crash has interrupted.
    public func goOn() async throws {
        for purge in try await database.purges() {
            while true {
                let deleted = try await database.continuePurge(purge, batch: Self.batch)
                for nid in deleted { rooms.context.forget(nid) }
                if deleted.isEmpty { break }
            }
        }
    }

    private func known(_ roomID: RoomID) async throws -> Room {
        guard let room = try await rooms.room(roomID) else {
            throw MatrixError.notFound("This server doesn't know the room.")
        }
        return room
    }
}
