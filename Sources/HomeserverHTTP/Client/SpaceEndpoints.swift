import Homeserver
import MatrixCore

/// The rooms of spaces (Client-Server API, "Spaces").
extension ClientAPI {
    var spaceEndpoints: [Endpoint] {
        [
            Endpoint(
                .GET, "/_matrix/client/v1/rooms/{roomId}/hierarchy", authentication: .accessToken, handler: hierarchy)
        ]
    }

    private func hierarchy(_ request: Request) async throws -> Response {
        let limit = try request.integer("limit") ?? Int64(SpaceHierarchy.defaultLimit)
        guard limit > 0 else { throw MatrixError.invalidParam("“limit” must be greater than zero.") }
        let depth = try request.integer("max_depth")
        guard depth ?? 0 >= 0 else { throw MatrixError.invalidParam("“max_depth” is negative.") }
        return .json(
            try await homeserver.spaces.page(
                of: try request.roomID(),
                .init(
                    limit: Int(clamping: limit), maxDepth: depth.map { Int(clamping: $0) },
                    suggestedOnly: try request.flag("suggested_only"), from: request.query["from"]),
                for: try request.authenticated()))
    }
}
