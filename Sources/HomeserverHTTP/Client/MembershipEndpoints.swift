import Homeserver
import MatrixCore

/// Room membership (Client-Server API, "Room membership").
extension ClientAPI {
    var membershipEndpoints: [Endpoint] {
        [
            Endpoint(
                .POST, "/_matrix/client/{version:v3|r0}/join/{roomIdOrAlias}", authentication: .accessToken,
                rateLimit: .join
            ) { try await self.join($0, $0["roomIdOrAlias"]) },
            Endpoint(
                .POST, "/_matrix/client/{version:v3|r0}/rooms/{roomId}/join", authentication: .accessToken,
                rateLimit: .join
            ) { try await self.join($0, try $0.roomID().string) },
            Endpoint(
                .POST, "/_matrix/client/{version:v3|r0}/knock/{roomIdOrAlias}", authentication: .accessToken,
                rateLimit: .join
            ) { request in
                let body = try await request.json(emptyIsObject: true).root
                let (roomID, servers) = try await self.homeserver.directory.resolve(request["roomIdOrAlias"])
                try await self.homeserver.memberships.knock(
                    roomID, reason: try body.optionalString("reason"), via: try Self.servers(request) + servers,
                    by: try request.authenticated())
                return .json(["room_id": .string(roomID.string)])
            },
            Endpoint(
                .POST, "/_matrix/client/{version:v3|r0}/rooms/{roomId}/invite", authentication: .accessToken,
                rateLimit: .invite
            ) { request in
                let body = try await request.json().root
                if body["user_id"] == nil, body["medium"] != nil {
                    throw MatrixError(
                        .threepidDenied, "This server can't invite by e-mail address or telephone number.")
                }
                try await self.homeserver.memberships.invite(
                    try UserID.parse(try body.requiredString("user_id")), to: try request.roomID(),
                    reason: try body.optionalString("reason"), by: try request.authenticated())
                return .empty
            },
            Endpoint(
                .POST, "/_matrix/client/{version:v3|r0}/rooms/{roomId}/leave", authentication: .accessToken
            ) { request in
                let body = try await request.json(emptyIsObject: true).root
                try await self.homeserver.memberships.leave(
                    try request.roomID(), reason: try body.optionalString("reason"), by: try request.authenticated())
                return .empty
            },
            removal("kick", .kick), removal("ban", .ban), removal("unban", .unban),
            Endpoint(
                .POST, "/_matrix/client/{version:v3|r0}/rooms/{roomId}/forget", authentication: .accessToken
            ) { request in
                try await self.homeserver.memberships.forget(try request.roomID(), by: try request.authenticated())
                return .empty
            },
            Endpoint(.GET, "/_matrix/client/{version:v3|r0}/joined_rooms", authentication: .accessToken) { request in
                let rooms = try await self.homeserver.reading.joinedRooms(of: try request.authenticated())
                return .json(["joined_rooms": .array(rooms.map { .string($0.string) })])
            },
        ]
    }

    private func join(_ request: Request, _ room: String) async throws -> Response {
        let body = try await request.json(emptyIsObject: true).root
        _ = try body.optionalObject("third_party_signed")
        let (roomID, servers) = try await homeserver.directory.resolve(room)
        try await homeserver.memberships.join(
            roomID, reason: try body.optionalString("reason"), via: try Self.servers(request) + servers,
            by: try request.authenticated())
        return .json(["room_id": .string(roomID.string)])
    }

    /// The servers by which a client says that a room can be reached; the second name is the one from before.
    static func servers(_ request: Request) throws -> [ServerName] {
        try (request.query.all("via") + request.query.all("server_name")).prefix(50).map { name in
            guard let server = ServerName(name) else {
                throw MatrixError.invalidParam("“\(name)” is not a server's name.")
            }
            return server
        }
    }

    private func removal(_ name: String, _ removal: MembershipService.Removal) -> Endpoint {
        Endpoint(
            .POST, PathPattern("/_matrix/client/{version:v3|r0}/rooms/{roomId}/\(name)"), authentication: .accessToken
        ) { request in
            let body = try await request.json().root
            try await self.homeserver.memberships.remove(
                try UserID.parse(try body.requiredString("user_id")), from: try request.roomID(), removal,
                reason: try body.optionalString("reason"), by: try request.authenticated())
            return .empty
        }
    }
}
