import Homeserver
import MatrixCore

/// Finding people, and the rooms shared with them (Client-Server API, "User Directory", "Mutual rooms").
extension ClientAPI {
    var userDirectoryEndpoints: [Endpoint] {
        [
            Endpoint(
                .POST, "/_matrix/client/{version:v3|r0}/user_directory/search", authentication: .accessToken,
                onlyReads: true
            ) { request in
                let body = try await request.json().root
                return .json(
                    try await self.homeserver.userDirectory.search(
                        try body.requiredString("search_term"),
                        limit: Int(clamping: try body.optionalInteger("limit") ?? 10),
                        for: try request.authenticated()))
            },
            Endpoint(.GET, "/_matrix/client/v1/mutual_rooms", authentication: .accessToken) { request in
                guard let name = request.query["user_id"] else { throw MatrixError.missingParam("user_id") }
                return .json(
                    try await self.homeserver.directory.mutualRooms(
                        of: try request.authenticated(), with: try UserID.parse(name), from: request.query["from"]))
            },
        ]
    }
}
