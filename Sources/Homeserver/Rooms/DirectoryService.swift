import Database
import MatrixCore

/// Aliases of this server's rooms (Client-Server API, "Room aliases").
public final class DirectoryService: Sendable {
    let rooms: RoomRegistry
    var database: Database { rooms.database }

    init(rooms: RoomRegistry) { self.rooms = rooms }

    /// The room an alias points to, and servers through which it can be joined.
    public func resolve(_ alias: RoomAlias) async throws -> (RoomID, servers: [ServerName]) {
        guard let (room, _) = try await database.room(ofAlias: alias) else {
            throw MatrixError.notFound("There is no room named \(alias).")
        }
        return (try await rooms.room(room).roomID, [rooms.context.serverName])
    }

    /// Points an alias to a room.
    ///
    /// - Throws: `M_UNKNOWN` with 409 if it is taken.
    public func create(_ alias: RoomAlias, for roomID: RoomID, by requester: Requester) async throws {
        guard alias.server == rooms.context.serverName else {
            throw MatrixError.invalidParam("Aliases made here end in :\(rooms.context.serverName).")
        }
        try rooms.context.appservices.checkMayChange(alias, by: requester.appservice)
        let (room, access) = try await rooms.readable(roomID, by: requester)
        guard access.isMember else { throw MembershipService.notInRoom }
        var write = Write()
        write.addAlias(alias, to: room.nid, by: requester.nid, at: rooms.context.surroundings.now())
        do { try await database.write(write) } catch DatabaseError.constraint {
            throw MatrixError(.unknown, "The alias \(alias) points to a room already.", status: 409)
        }
    }

    /// Removes an alias; its creator may, and whoever may change the room's canonical alias.
    public func delete(_ alias: RoomAlias, by requester: Requester) async throws {
        guard let (nid, creator) = try await database.room(ofAlias: alias) else {
            throw MatrixError.notFound("There is no alias \(alias).")
        }
        try rooms.context.appservices.checkMayChange(alias, by: requester.appservice)
        if creator != requester.nid, requester.appservice == nil {
            let room = try await rooms.room(nid)
            let mayChange = try await rooms.perform(in: room) { draft in
                guard try await draft.membership(of: requester.userID) == .join else { return false }
                return try await draft.powerLevels().allows(
                    requester.userID, toSend: "m.room.canonical_alias", isState: true)
            }
            guard mayChange else {
                throw MatrixError.forbidden("Only who made the alias, or may name the room, can remove it.")
            }
        }
        var write = Write()
        write.removeAlias(alias)
        do { try await database.write(write) } catch DatabaseError.conflict {
            throw MatrixError.notFound("There is no alias \(alias).")
        }
    }

    /// The aliases of a room (`GET /rooms/{roomId}/aliases`).
    public func aliases(of roomID: RoomID, for requester: Requester) async throws -> [RoomAlias] {
        let (room, _) = try await rooms.readable(roomID, by: requester)
        return try await database.aliases(of: room.nid)
    }
}
