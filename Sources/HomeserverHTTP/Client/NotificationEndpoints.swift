import Homeserver
import MatrixCore

/// What a user has been notified of (Client-Server API, "Listing Notifications").
extension ClientAPI {
    var notificationEndpoints: [Endpoint] {
        [
            Endpoint(.GET, "/_matrix/client/{version:v3|r0}/notifications", authentication: .accessToken) { request in
                .json(
                    try await self.homeserver.notificationList.page(
                        from: request.query["from"], limit: try request.integer("limit").map { Int(clamping: $0) },
                        onlyHighlights: request.query["only"] == "highlight", for: try request.authenticated()))
            }
        ]
    }
}
