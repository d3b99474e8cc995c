import Homeserver
import MatrixCore

/// Events that are sent later (MSC4140), under the names that the proposal has as long as it is one.
extension ClientAPI {
    var delayedEventEndpoints: [Endpoint] {
        let base = "/_matrix/client/unstable/org.matrix.msc4140"
        return [
            Endpoint(
                .PUT, PathPattern("\(base)/rooms/{roomId}/delayed_event/{eventType}/{txnId}"),
                authentication: .accessToken, rateLimit: .message, handler: schedule),
            Endpoint(.GET, PathPattern("\(base)/delayed_events"), authentication: .accessToken) { request in
                let events = try await self.homeserver.delayedEvents.events(for: try request.authenticated())
                return .json(["delayed_events": .array(events)])
            },
            Endpoint(.GET, PathPattern("\(base)/delayed_events/{delayId}"), authentication: .accessToken) { request in
                .json(
                    try await self.homeserver.delayedEvents.event(
                        request["delayId"], for: try request.authenticated()))
            },
            Endpoint(
                .POST, PathPattern("\(base)/delayed_events/{delayId}/{action:send|cancel|restart}"),
                authentication: .accessToken
            ) { request in
                _ = try await request.json(emptyIsObject: true)
                return try await self.perform(request["action"], request)
            },
            // As clients do it that know an earlier form of the proposal.
            Endpoint(.POST, PathPattern("\(base)/delayed_events/{delayId}"), authentication: .accessToken) { request in
                try await self.perform(try await request.json().root.requiredString("action"), request)
            },
        ]
    }

    private func perform(_ name: String, _ request: Request) async throws -> Response {
        guard let action = DelayedEventService.Action(rawValue: name) else {
            throw MatrixError.invalidParam("“action” must be send, cancel or restart.")
        }
        try await homeserver.delayedEvents.perform(
            action, on: request["delayId"], by: try request.authenticated())
        return .empty
    }

    private func schedule(_ request: Request) async throws -> Response {
        let body = try await request.json().root
        guard let delay = try body.optionalInteger("delay_ms") else { throw MatrixError.missingParam("delay_ms") }
        guard let content = try body.optionalObject("content") else { throw MatrixError.missingParam("content") }
        return try await schedule(
            request, delay: delay, stateKey: try body.optionalString("state_key"), content: content.json,
            transactionID: request["txnId"])
    }

    /// Schedules an event that is sent with `org.matrix.msc4140.delay`, as clients do it that know an earlier form of the proposal.
    ///
    /// - Returns: nil if the request has no such parameter.
    func scheduled(
        _ request: Request, stateKey: String?, content: JSON, transactionID: String
    ) async throws -> Response? {
        guard let delay = try request.integer("org.matrix.msc4140.delay") else { return nil }
        return try await schedule(
            request, delay: delay, stateKey: stateKey, content: content, transactionID: transactionID)
    }

    private func schedule(
        _ request: Request, delay: Int64, stateKey: String?, content: JSON, transactionID: String
    ) async throws -> Response {
        let delayID = try await homeserver.delayedEvents.schedule(
            .init(
                type: request["eventType"], stateKey: stateKey, content: content, delay: delay,
                transactionID: transactionID, timestamp: try request.timestamp(), sticky: try request.stickyDuration()),
            in: try request.roomID(), by: try request.authenticated())
        return .json(["delay_id": .string(delayID)])
    }
}

extension Request {
    /// How long an event is to be sticky, in milliseconds (MSC4354); nil if it isn't.
    func stickyDuration() throws -> Int64? {
        guard let duration = try integer("org.matrix.msc4354.sticky_duration_ms") else { return nil }
        guard (0...StickyEvents.longest).contains(duration) else {
            throw MatrixError.invalidParam("An event is sticky for 0 to \(StickyEvents.longest) milliseconds.")
        }
        return duration
    }
}
