import Homeserver
import MatrixCore

/// Reporting Content (Client-Server API, module "Reporting Content").
extension ClientAPI {
    var reportEndpoints: [Endpoint] {
        [
            Endpoint(
                .POST, "/_matrix/client/v3/rooms/{roomId}/report", authentication: .accessToken, rateLimit: .report
            ) { request in
                let reason = try await request.json().root.requiredString("reason")
                try await self.homeserver.reports.reportRoom(
                    try request.roomID(), reason: reason, by: try request.authenticated())
                return .empty
            },
            Endpoint(
                .POST, "/_matrix/client/{version:v3|r0}/rooms/{roomId}/report/{eventId}", authentication: .accessToken,
                rateLimit: .report
            ) { request in
                let body = try await request.json(emptyIsObject: true).root
                try await self.homeserver.reports.reportEvent(
                    try request.eventID(), in: try request.roomID(), reason: try body.optionalString("reason"),
                    score: try body.optionalInteger("score"), by: try request.authenticated())
                return .empty
            },
            Endpoint(
                .POST, "/_matrix/client/v3/users/{userId}/report", authentication: .accessToken, rateLimit: .report
            ) { request in
                let reason = try await request.json().root.requiredString("reason")
                try await self.homeserver.reports.reportUser(
                    try UserID.parse(request["userId"]), reason: reason, by: try request.authenticated())
                return .empty
            },
        ]
    }
}
