import Homeserver
import MatrixCore

/// Subscriptions to threads (MSC4306, MSC4308), under the names that the proposals have as long as they are such.
extension ClientAPI {
    var threadSubscriptionEndpoints: [Endpoint] {
        let thread: PathPattern =
            "/_matrix/client/unstable/io.element.msc4306/rooms/{roomId}/thread/{eventId}/subscription"
        return [
            Endpoint(.PUT, thread, authentication: .accessToken) { request in
                let body = try await request.json(emptyIsObject: true).root
                let cause = try body.optionalString("automatic").map { text in
                    guard let cause = EventID(text) else {
                        throw MatrixError.invalidParam("“automatic” is not an event ID.")
                    }
                    return cause
                }
                try await self.homeserver.threadSubscriptions.subscribe(
                    to: try request.eventID(), in: try request.roomID(), because: cause,
                    by: try request.authenticated())
                return .empty
            },
            Endpoint(.DELETE, thread, authentication: .accessToken) { request in
                try await self.homeserver.threadSubscriptions.unsubscribe(
                    from: try request.eventID(), in: try request.roomID(), by: try request.authenticated())
                return .empty
            },
            Endpoint(.GET, thread, authentication: .accessToken) { request in
                let isAutomatic = try await self.homeserver.threadSubscriptions.isAutomatic(
                    try request.eventID(), in: try request.roomID(), for: try request.authenticated())
                return .json(["automatic": .bool(isAutomatic)])
            },
            Endpoint(
                .GET, "/_matrix/client/unstable/io.element.msc4308/thread_subscriptions", authentication: .accessToken
            ) { request in
                guard request.query["dir"] == "b" else { throw MatrixError.invalidParam("“dir” must be b.") }
                let limit = try request.integer("limit") ?? 100
                guard limit > 0 else { throw MatrixError.invalidParam("“limit” must be above 0.") }
                return .json(
                    try await self.homeserver.threadSubscriptions.page(
                        from: request.query["from"], to: request.query["to"], limit: Int(clamping: limit),
                        for: try request.authenticated()))
            },
        ]
    }
}
