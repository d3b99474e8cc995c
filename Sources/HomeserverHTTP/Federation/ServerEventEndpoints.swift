import Homeserver
import MatrixCore

/// Events and states (Server-Server API, "Retrieving events", "Backfilling and retrieving missing events", "Retrieving event
/// authorisation information").
extension FederationAPI {
    var eventEndpoints: [Endpoint] {
        [
            signed(.GET, "\(Self.prefix)/event/{eventId}") { request, origin in
                .json(try await self.federation.events.event(try request.eventID(), for: origin))
            },
            signed(.GET, "\(Self.prefix)/state/{roomId}") { request, origin in
                .json(
                    try await self.federation.events.state(
                        before: try request.eventID(query: "event_id"), in: try request.roomID(), idsOnly: false,
                        for: origin))
            },
            signed(.GET, "\(Self.prefix)/state_ids/{roomId}") { request, origin in
                .json(
                    try await self.federation.events.state(
                        before: try request.eventID(query: "event_id"), in: try request.roomID(), idsOnly: true,
                        for: origin))
            },
            signed(.GET, "\(Self.prefix)/event_auth/{roomId}/{eventId}") { request, origin in
                .json(
                    try await self.federation.events.authChain(
                        of: try request.eventID(), in: try request.roomID(), for: origin))
            },
            signed(.GET, "\(Self.prefix)/backfill/{roomId}") { request, origin in
                guard let limit = try request.integer("limit") else { throw MatrixError.missingParam("limit") }
                let from = request.query.all("v").compactMap { EventID($0) }
                guard !from.isEmpty else { throw MatrixError.missingParam("v") }
                return .json(
                    try await self.federation.events.backfill(
                        from: from, in: try request.roomID(), limit: Int(clamping: limit), for: origin))
            },
            signed(.POST, "\(Self.prefix)/get_missing_events/{roomId}") { request, origin in
                .json(
                    try await self.federation.events.missing(
                        try request.object(), in: try request.roomID(), for: origin))
            },
            signed(.GET, "\(Self.prefix)/timestamp_to_event/{roomId}") { request, origin in
                guard let time = try request.integer("ts") else { throw MatrixError.missingParam("ts") }
                guard let direction = request.query["dir"], ["b", "f"].contains(direction) else {
                    throw MatrixError.invalidParam("“dir” must be b or f.")
                }
                return .json(
                    try await self.federation.events.event(
                        at: time, backwards: direction == "b", in: try request.roomID(), for: origin))
            },
        ]
    }
}
