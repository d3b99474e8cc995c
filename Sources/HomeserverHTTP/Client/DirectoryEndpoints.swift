import Homeserver
import MatrixCore

/// Room aliases (Client-Server API, "Room aliases").
extension ClientAPI {
    var directoryEndpoints: [Endpoint] {
        let alias: PathPattern = "/_matrix/client/{version:v3|r0}/directory/room/{roomAlias}"
        return [
            Endpoint(.GET, alias, authentication: .optionalAccessToken) { request in
                let (room, servers) = try await self.homeserver.directory.resolve(try request.roomAlias())
                return .json([
                    "room_id": .string(room.string), "servers": .array(servers.map { .string($0.string) }),
                ])
            },
            Endpoint(.PUT, alias, authentication: .accessToken) { request in
                let body = try await request.json().root
                guard let room = RoomID(try body.requiredString("room_id")) else {
                    throw MatrixError.invalidParam("“room_id” is not a room ID.")
                }
                try await self.homeserver.directory.create(
                    try request.roomAlias(), for: room, by: try request.authenticated())
                return .empty
            },
            Endpoint(.DELETE, alias, authentication: .accessToken) { request in
                try await self.homeserver.directory.delete(try request.roomAlias(), by: try request.authenticated())
                return .empty
            },
            Endpoint(
                .GET, "/_matrix/client/{version:v3|r0}/rooms/{roomId}/aliases", authentication: .accessToken
            ) { request in
                let aliases = try await self.homeserver.directory.aliases(
                    of: try request.roomID(), for: try request.authenticated())
                return .json(["aliases": .array(aliases.map { .string($0.string) })])
            },
        ]
    }
}

extension Request {
    fileprivate func roomAlias() throws -> RoomAlias {
        guard let alias = RoomAlias(self["roomAlias"]) else {
            throw MatrixError.invalidParam("“\(self["roomAlias"])” is not a room alias.")
        }
        return alias
    }
}
