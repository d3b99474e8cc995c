import Database
import Homeserver
import MatrixCore

/// Questions about aliases, people, their devices and keys, and published rooms (Server-Server API, "Querying for information",
/// "Device Management", "End-to-End Encryption", "Public Room Directory", "OpenID").
extension FederationAPI {
    var queryEndpoints: [Endpoint] {
        [
            Endpoint(
                .GET, PathPattern("\(Self.prefix)/openid/userinfo"), api: .federation, authentication: .none
            ) { request in
                guard let token = request.query["access_token"] else { throw MatrixError.missingParam("access_token") }
                guard let user = try await self.homeserver.accounts.user(ofOpenIDToken: token) else {
                    throw MatrixError(.unknownToken, "This token isn't valid, or not any more.")
                }
                return .json(["sub": .string(user.string)])
            },
            signed(.GET, "\(Self.prefix)/query/directory") { request, _ in
                guard let text = request.query["room_alias"] else { throw MatrixError.missingParam("room_alias") }
                guard let alias = RoomAlias(text), alias.server == self.homeserver.configuration.serverName else {
                    throw MatrixError.notFound("“\(text)” is no alias of this server.")
                }
                let (roomID, servers) = try await self.homeserver.directory.resolve(alias)
                return .json([
                    "room_id": .string(roomID.string), "servers": .array(servers.map { .string($0.string) }),
                ])
            },
            signed(.GET, "\(Self.prefix)/query/profile") { request, _ in
                guard let text = request.query["user_id"] else { throw MatrixError.missingParam("user_id") }
                return .json(
                    try await self.federation.profile(of: try UserID.parse(text), field: request.query["field"]) {
                        try await self.homeserver.profiles.profile(of: $0)
                    })
            },
            signed(.GET, "\(Self.prefix)/user/devices/{userId}") { request, origin in
                .json(try await self.federation.devices(of: try UserID.parse(request["userId"]), for: origin))
            },
            signed(.POST, "\(Self.prefix)/user/keys/query") { request, _ in
                guard let asked = try request.object()["device_keys"], asked.isObject else {
                    throw MatrixError.missingParam("device_keys")
                }
                return .json(try await self.federation.queryKeys(asked))
            },
            signed(.POST, "\(Self.prefix)/user/keys/claim") { request, _ in
                guard let asked = try request.object()["one_time_keys"], asked.isObject else {
                    throw MatrixError.missingParam("one_time_keys")
                }
                return .json(try await self.federation.claimKeys(asked))
            },
            signed(.GET, "\(Self.prefix)/hierarchy/{roomId}") { request, origin in
                .json(
                    try await self.homeserver.spaces.hierarchy(
                        of: try request.roomID(), suggestedOnly: try request.flag("suggested_only"), for: origin))
            },
            signed(.GET, "\(Self.prefix)/publicRooms") { request, _ in
                let limit = try request.integer("limit").map { Int(clamping: $0) }
                return .json(
                    try await self.homeserver.directory.publishedRooms(
                        .init(
                            limit: limit, since: request.query["since"], searchTerm: nil, roomTypes: nil,
                            lists: try PublishedLists(
                                all: try request.flag("include_all_networks"),
                                instance: request.query["third_party_instance_id"]))))
            },
            signed(.POST, "\(Self.prefix)/publicRooms") { request, _ in
                .json(try await self.homeserver.directory.publishedRooms(.init(try request.object())))
            },
        ]
    }
}
