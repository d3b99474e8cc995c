import Homeserver
import MatrixCore

/// Sending events and reading them (Client-Server API, "Getting events for a room", "Sending events to a room").
extension ClientAPI {
    var roomEventEndpoints: [Endpoint] {
        let room = "/_matrix/client/{version:v3|r0}/rooms/{roomId}"
        return [
            Endpoint(
                .PUT, PathPattern("\(room)/send/{eventType}/{txnId}"), authentication: .accessToken,
                rateLimit: .message,
                handler: send),
            Endpoint(
                .PUT, PathPattern("\(room)/redact/{eventId}/{txnId}"), authentication: .accessToken,
                rateLimit: .message,
                handler: redact),
            Endpoint(
                .PUT, [PathPattern("\(room)/state/{eventType}"), PathPattern("\(room)/state/{eventType}/{stateKey}")],
                authentication: .accessToken, rateLimit: .message, handler: setState),
            Endpoint(
                .GET, [PathPattern("\(room)/state/{eventType}"), PathPattern("\(room)/state/{eventType}/{stateKey}")],
                authentication: .accessToken, handler: getState),
            Endpoint(.GET, PathPattern("\(room)/state"), authentication: .accessToken) { request in
                .json(
                    try await self.homeserver.reading.state(of: try request.roomID(), for: try request.authenticated()))
            },
            Endpoint(.GET, PathPattern("\(room)/members"), authentication: .accessToken, handler: members),
            Endpoint(.GET, PathPattern("\(room)/joined_members"), authentication: .accessToken) { request in
                .json(
                    try await self.homeserver.reading.joinedMembers(
                        of: try request.roomID(), for: try request.authenticated()))
            },
            Endpoint(.GET, PathPattern("\(room)/event/{eventId}"), authentication: .accessToken) { request in
                .json(
                    try await self.homeserver.reading.event(
                        try request.eventID(), in: try request.roomID(), for: try request.authenticated()))
            },
            Endpoint(.GET, PathPattern("\(room)/messages"), authentication: .accessToken, handler: messages),
            Endpoint(.GET, PathPattern("\(room)/context/{eventId}"), authentication: .accessToken) { request in
                let limit = try request.integer("limit") ?? 10
                guard limit >= 0 else { throw MatrixError.invalidParam("“limit” is negative.") }
                return .json(
                    try await self.homeserver.reading.context(
                        of: try request.eventID(), in: try request.roomID(), limit: Int(clamping: limit),
                        filter: try Self.filter(request), for: try request.authenticated()))
            },
            Endpoint(
                .GET, "/_matrix/client/v1/rooms/{roomId}/timestamp_to_event", authentication: .accessToken,
                handler: eventAtTime),
        ]
    }

    private func send(_ request: Request) async throws -> Response {
        homeserver.presence.acted(try request.authenticated())
        let content = try await request.json().root.json
        if let scheduled = try await scheduled(
            request, stateKey: nil, content: content, transactionID: request["txnId"])
        {
            return scheduled
        }
        let event = try await homeserver.sending.send(
            request["eventType"], content: content, to: try request.roomID(), transactionID: request["txnId"],
            timestamp: try request.timestamp(), sticky: try request.stickyDuration(), by: try request.authenticated())
        return .json(["event_id": .string(event.string)])
    }

    private func redact(_ request: Request) async throws -> Response {
        let body = try await request.json(emptyIsObject: true).root
        var content: JSON = [:]
        if let reason = try body.optionalString("reason") { content["reason"] = .string(reason) }
        let event = try await homeserver.sending.send(
            "m.room.redaction", content: content, to: try request.roomID(), transactionID: request["txnId"],
            redacts: try request.eventID(), by: try request.authenticated())
        return .json(["event_id": .string(event.string)])
    }

    private func setState(_ request: Request) async throws -> Response {
        let content = try await request.json().root.json
        // Such a request has no transaction: each schedules an event of its own.
        let unique = homeserver.surroundings.randomBytes(8).map(String.init).joined(separator: ".")
        if let scheduled = try await scheduled(
            request, stateKey: request["stateKey"], content: content, transactionID: "\0\(unique)")
        {
            return scheduled
        }
        let event = try await homeserver.sending.setState(
            StateKey(request["eventType"], request["stateKey"]), content: content, in: try request.roomID(),
            timestamp: try request.timestamp(), sticky: try request.stickyDuration(), by: try request.authenticated())
        if request["eventType"] == "m.room.guest_access" {
            try await homeserver.memberships.removeGuests(from: try request.roomID())
        }
        return .json(["event_id": .string(event.string)])
    }

    private func getState(_ request: Request) async throws -> Response {
        let format = request.query["format"] ?? "content"
        guard format == "content" || format == "event" else {
            throw MatrixError.invalidParam("“format” must be content or event.")
        }
        return .json(
            try await homeserver.reading.state(
                of: try request.roomID(), key: StateKey(request["eventType"], request["stateKey"]),
                wholeEvent: format == "event", for: try request.authenticated()))
    }

    private func members(_ request: Request) async throws -> Response {
        for name in ["membership", "not_membership"] {
            if let value = request.query[name], Membership(rawValue: value) == nil {
                throw MatrixError.invalidParam("“\(name)” must be join, invite, knock, leave or ban.")
            }
        }
        let filter = RoomReading.MemberFilter(
            membership: request.query["membership"], notMembership: request.query["not_membership"],
            at: request.query["at"])
        return .json(
            try await homeserver.reading.members(
                of: try request.roomID(), filter: filter, for: try request.authenticated()))
    }

    /// The filter in the query, written out.
    private static func filter(_ request: Request) throws -> RoomEventFilter {
        guard let text = request.query["filter"] else { return RoomEventFilter() }
        do {
            return try RoomEventFilter(try JSONDocument(parsing: Array(text.utf8)).root)
        } catch let error as JSONError {
            throw MatrixError.notJSON("The filter is not JSON: \(error)")
        }
    }

    private func eventAtTime(_ request: Request) async throws -> Response {
        guard let timestamp = try request.integer("ts") else { throw MatrixError.missingParam("ts") }
        guard let direction = request.query["dir"] else { throw MatrixError.missingParam("dir") }
        guard direction == "f" || direction == "b" else { throw MatrixError.invalidParam("“dir” must be b or f.") }
        let (event, time) = try await homeserver.reading.event(
            in: try request.roomID(), nearest: timestamp, forwards: direction == "f", for: try request.authenticated())
        return .json(["event_id": .string(event.string), "origin_server_ts": .integer(time)])
    }

    private func messages(_ request: Request) async throws -> Response {
        let backwards: Bool
        switch request.query["dir"] {
        case "b": backwards = true
        case "f": backwards = false
        case nil: throw MatrixError.missingParam("dir")
        default: throw MatrixError.invalidParam("“dir” must be b or f.")
        }
        let limit = try request.integer("limit") ?? 10
        guard limit >= 0 else { throw MatrixError.invalidParam("“limit” is negative.") }
        let filter = try Self.filter(request)
        return .json(
            try await homeserver.reading.messages(
                in: try request.roomID(),
                .init(
                    from: request.query["from"], to: request.query["to"], backwards: backwards,
                    limit: Int(clamping: limit),
                    filter: filter),
                for: try request.authenticated()))
    }
}

extension Request {
    /// The time that an application service gives an event (Application Service API, "Timestamp massaging"); others may not.
    func timestamp() throws -> Int64? {
        guard requester?.appservice != nil, let timestamp = try integer("ts") else { return nil }
        // What canonical JSON can hold, and a time.
        guard (0...(1 << 53 - 1)).contains(timestamp) else {
            throw MatrixError.invalidParam("“ts” is not a time that an event can have.")
        }
        return timestamp
    }
}
