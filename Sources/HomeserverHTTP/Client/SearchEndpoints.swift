import Homeserver
import MatrixCore

/// Searching messages (Client-Server API, "Server Side Search").
extension ClientAPI {
    var searchEndpoints: [Endpoint] {
        [
            Endpoint(.POST, "/_matrix/client/{version:v3|r0}/search", authentication: .accessToken, onlyReads: true) {
                request in
                guard let categories = try await request.json().root.optionalObject("search_categories") else {
                    throw MatrixError.missingParam("search_categories")
                }
                // Without a category nothing is searched.
                guard let criteria = try categories.optionalObject("room_events") else {
                    return .json(["search_categories": [:]])
                }
                return .json(
                    try await self.homeserver.search.search(
                        try SearchRequest(criteria, nextBatch: request.query["next_batch"]),
                        for: try request.authenticated()))
            }
        ]
    }
}
