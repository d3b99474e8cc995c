import Homeserver
import MatrixCore

/// What a room shows of itself before one enters (Client-Server API, "Room summaries"), also where clients asked before it was
/// in the specification (MSC3266).
extension ClientAPI {
    var roomSummaryEndpoints: [Endpoint] {
        [
            Endpoint(
                .GET,
                [
                    "/_matrix/client/v1/room_summary/{roomIdOrAlias}",
                    "/_matrix/client/unstable/im.nheko.summary/summary/{roomIdOrAlias}",
                    "/_matrix/client/unstable/im.nheko.summary/rooms/{roomIdOrAlias}/summary",
                ], authentication: .optionalAccessToken
            ) { request in
                .json(
                    try await self.homeserver.spaces.summary(
                        of: request["roomIdOrAlias"], via: try Self.servers(request), for: request.requester))
            }
        ]
    }
}
