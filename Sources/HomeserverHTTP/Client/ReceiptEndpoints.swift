import Homeserver
import MatrixCore

/// Receipts, read markers and typing (Client-Server API, modules "Receipts", "Read and unread markers", "Typing
/// Notifications").
extension ClientAPI {
    var receiptEndpoints: [Endpoint] {
        [
            Endpoint(
                .POST, "/_matrix/client/{version:v3|r0}/rooms/{roomId}/receipt/{receiptType}/{eventId}",
                authentication: .accessToken, handler: setReceipt),
            Endpoint(
                .POST, "/_matrix/client/{version:v3|r0}/rooms/{roomId}/read_markers", authentication: .accessToken,
                handler: setReadMarkers),
            Endpoint(
                .PUT, "/_matrix/client/{version:v3|r0}/rooms/{roomId}/typing/{userId}", authentication: .accessToken
            ) { request in
                _ = try request.own()
                let body = try await request.json().root
                let isTyping = try body.requiredBool("typing")
                let timeout = try body.optionalInteger("timeout") ?? 30_000
                try await self.homeserver.receipts.setTyping(
                    isTyping ? timeout : nil, in: try request.roomID(), by: try request.authenticated())
                return .empty
            },
        ]
    }

    private func setReceipt(_ request: Request) async throws -> Response {
        homeserver.presence.acted(try request.authenticated())
        let body = try await request.json(emptyIsObject: true).root
        let type = request["receiptType"]
        var thread: String?
        if let value = body["thread_id"] {
            guard let text = value.string, !text.isEmpty else {
                throw MatrixError.invalidParam("“thread_id” must be a text that isn't empty.")
            }
            thread = text
        }
        try await homeserver.receipts.setReceipt(
            type, on: try request.eventID(), thread: thread, in: try request.roomID(), by: try request.authenticated())
        return .empty
    }

    private func setReadMarkers(_ request: Request) async throws -> Response {
        let body = try await request.json().root
        func event(_ key: String) throws -> EventID? {
            try body.optionalString(key).map { text in
                guard let event = EventID(text) else { throw MatrixError.invalidParam("“\(key)” is not an event ID.") }
                return event
            }
        }
        try await homeserver.receipts.setReadMarkers(
            fullyRead: try event("m.fully_read"), read: try event("m.read"), readPrivate: try event("m.read.private"),
            in: try request.roomID(), by: try request.authenticated())
        return .empty
    }
}
