import Homeserver
import MatrixCore

/// Relations and threads (Client-Server API, "Relationships between events", module "Threading").
extension ClientAPI {
    var relationEndpoints: [Endpoint] {
        let relations = "/_matrix/client/v1/rooms/{roomId}/relations/{eventId}"
        return [
            Endpoint(
                .GET,
                [
                    PathPattern(relations), PathPattern("\(relations)/{relType}"),
                    PathPattern("\(relations)/{relType}/{eventType}"),
                ], authentication: .accessToken, handler: self.relations),
            Endpoint(.GET, "/_matrix/client/v1/rooms/{roomId}/threads", authentication: .accessToken) { request in
                let include = request.query["include"] ?? "all"
                guard ["all", "participated"].contains(include) else {
                    throw MatrixError.invalidParam("“include” must be all or participated.")
                }
                return .json(
                    try await self.homeserver.reading.threads(
                        in: try request.roomID(), onlyOwn: include == "participated", from: request.query["from"],
                        limit: Int(clamping: try request.integer("limit") ?? 20), for: try request.authenticated()))
            },
        ]
    }

    private func relations(_ request: Request) async throws -> Response {
        let direction = request.query["dir"] ?? "b"
        guard direction == "f" || direction == "b" else { throw MatrixError.invalidParam("“dir” must be b or f.") }
        let wanted = RoomReading.RelationsRequest(
            relType: request["relType"].isEmpty ? nil : request["relType"],
            eventType: request["eventType"].isEmpty ? nil : request["eventType"], from: request.query["from"],
            to: request.query["to"], backwards: direction == "b",
            limit: Int(clamping: try request.integer("limit") ?? 5), recurses: try request.flag("recurse"))
        return .json(
            try await homeserver.reading.relations(
                of: try request.eventID(), in: try request.roomID(), wanted, for: try request.authenticated()))
    }
}
