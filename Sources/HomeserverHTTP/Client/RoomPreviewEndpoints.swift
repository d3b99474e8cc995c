import Homeserver
import MatrixCore

/// Looking into rooms without joining them (Client-Server API, "Room Previews"), and the endpoints that were before sync.
extension ClientAPI {
    var previewEndpoints: [Endpoint] {
        [
            Endpoint(
                .GET, "/_matrix/client/{version:v3|r0}/rooms/{roomId}/initialSync", authentication: .accessToken
            ) { request in
                .json(
                    try await self.homeserver.previews.room(
                        try request.roomID(), limit: try Self.limit(request), for: try request.authenticated()))
            },
            Endpoint(
                .GET, "/_matrix/client/{version:v3|r0}/initialSync", authentication: .accessToken
            ) { request in
                .json(
                    try await self.homeserver.previews.all(
                        limit: try Self.limit(request), archived: try request.flag("archived"),
                        for: try request.authenticated()))
            },
            Endpoint(.GET, "/_matrix/client/{version:v3|r0}/events", authentication: .accessToken) { request in
                let room = try request.query["room_id"].map { text in
                    guard let room = RoomID(text) else {
                        throw MatrixError.invalidParam("“room_id” is not a room ID.")
                    }
                    return room
                }
                return .json(
                    try await self.homeserver.previews.events(
                        from: request.query["from"], in: room, timeout: try request.integer("timeout") ?? 0,
                        for: try request.authenticated()))
            },
            Endpoint(
                .GET, "/_matrix/client/{version:v3|r0}/events/{eventId}", authentication: .accessToken
            ) { request in
                .json(
                    try await self.homeserver.previews.event(try request.eventID(), for: try request.authenticated()))
            },
        ]
    }

    private static func limit(_ request: Request) throws -> Int {
        let limit = try request.integer("limit") ?? 20
        guard limit >= 0 else { throw MatrixError.invalidParam("“limit” is negative.") }
        return Int(clamping: limit)
    }
}
