import Database
import MatrixCore
import Synchronization

/// Aliases of this server's rooms (Client-Server API, "Room aliases").
public final class DirectoryService: Sendable {
    let rooms: RoomRegistry
    var database: Database { rooms.database }

    let client: FederationClient

    /// What published rooms showed of themselves lately. The lock protects the cache.
    let listings = Mutex(BoundedCache<RoomNID, KnownListing>(capacity: 20_000))

    init(rooms: RoomRegistry, client: FederationClient) {
        self.rooms = rooms
        self.client = client
    }

    /// The room that an ID or an alias stands for, and servers by which it can be reached.
    public func resolve(_ roomIDOrAlias: String) async throws -> (RoomID, servers: [ServerName]) {
        if let roomID = RoomID(roomIDOrAlias) { return (roomID, []) }
        guard let alias = RoomAlias(roomIDOrAlias) else {
            throw MatrixError.invalidParam("“\(roomIDOrAlias)” is neither a room ID nor a room alias.")
        }
        return try await resolve(alias)
    }

    /// The room an alias points to, and servers through which it can be joined.
    public func resolve(_ alias: RoomAlias) async throws -> (RoomID, servers: [ServerName]) {
        if alias.server != rooms.context.serverName { return try await resolveElsewhere(alias) }
        guard let (room, _) = try await database.room(ofAlias: alias) else {
            throw MatrixError.notFound("There is no room named \(alias).")
        }
        let others = try await database.read { try await self.database.servers(in: room, $0) }
        let names = try await database.servers(others.prefix(Self.mostServers).map(\.server))
        let servers = others.compactMap { names[$0.server] }.filter { $0 != rooms.context.serverName }
        return (try await rooms.room(room).roomID, [rooms.context.serverName] + servers)
    }

    /// Servers that are told with an alias at most.
    private static let mostServers = 20

    /// Server-Server API, `GET /query/directory`.
    private func resolveElsewhere(_ alias: RoomAlias) async throws -> (RoomID, servers: [ServerName]) {
        let path = FederationClient.path(
            "/_matrix/federation/v1/query/directory", query: [("room_alias", alias.string)])
        do {
            let answer = try await client.get(path, from: alias.server)
            guard let roomID = answer["room_id"]?.string.flatMap({ RoomID($0) }) else {
                throw MatrixError.notFound("\(alias.server) knows no room named \(alias).")
            }
            var servers =
                answer["servers"]?.elements.prefix(Self.mostServers).compactMap {
                    $0.string.flatMap { ServerName($0) }
                } ?? []
            if !servers.contains(alias.server) { servers.append(alias.server) }
            return (roomID, servers)
        } catch let error as FederationFailure {
            throw error.clientError
        }
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
        let (room, access) = try await rooms.readable(roomID, by: requester)
        // Those who left it don't see what names it has got since.
        if access.leftAt != nil, !(try await rooms.isWorldReadable(room)) { throw MembershipService.notInRoom }
        return try await database.aliases(of: room.nid)
    }
}
