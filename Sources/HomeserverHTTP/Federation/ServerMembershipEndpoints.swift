import Homeserver
import MatrixCore

/// Joining, leaving, knocking, inviting (Server-Server API, "Joining Rooms", "Knocking upon a room", "Leaving Rooms (Rejecting
/// Invites)", "Inviting to a room", "Third-party invites").
extension FederationAPI {
    var membershipEndpoints: [Endpoint] {
        [
            template("make_join", .join), template("make_leave", .leave), template("make_knock", .knock),
            signed(.PUT, "/_matrix/federation/v2/send_join/{roomId}/{eventId}") { request, origin in
                .json(
                    try await self.federation.memberships.join(
                        try request.object(), try request.eventID(), in: try request.roomID(),
                        omitsMembers: try request.flag("omit_members"), by: origin))
            },
            signed(.PUT, "\(Self.prefix)/send_join/{roomId}/{eventId}") { request, origin in
                let answer = try await self.federation.memberships.join(
                    try request.object(), try request.eventID(), in: try request.roomID(), omitsMembers: false,
                    by: origin)
                return .json(Array("[200,".utf8) + answer + Array("]".utf8))
            },
            signed(.PUT, "/_matrix/federation/v2/send_leave/{roomId}/{eventId}") { request, origin in
                try await self.federation.memberships.leave(
                    try request.object(), try request.eventID(), in: try request.roomID(), by: origin)
                return .empty
            },
            signed(.PUT, "\(Self.prefix)/send_leave/{roomId}/{eventId}") { request, origin in
                try await self.federation.memberships.leave(
                    try request.object(), try request.eventID(), in: try request.roomID(), by: origin)
                return .json(Array("[200,{}]".utf8))
            },
            signed(.PUT, "\(Self.prefix)/send_knock/{roomId}/{eventId}") { request, origin in
                .json(
                    try await self.federation.memberships.knock(
                        try request.object(), try request.eventID(), in: try request.roomID(), by: origin))
            },
            signed(.PUT, "/_matrix/federation/v2/invite/{roomId}/{eventId}") { request, origin in
                let body = try request.object()
                guard let version = body["room_version"]?.string else { throw MatrixError.missingParam("room_version") }
                guard let event = body["event"], event.isObject else { throw MatrixError.missingParam("event") }
                let signed = try await self.federation.memberships.invite(
                    event, version: version, stripped: body["invite_room_state"], try request.eventID(),
                    in: try request.roomID(), by: origin)
                return .json(["event": .raw(signed.json)])
            },
            signed(.PUT, "\(Self.prefix)/invite/{roomId}/{eventId}") { request, origin in
                let event = try request.object()
                let signed = try await self.federation.memberships.invite(
                    event, version: "1", stripped: event["unsigned"]?["invite_room_state"], try request.eventID(),
                    in: try request.roomID(), by: origin)
                return .json([200, ["event": .raw(signed.json)]])
            },
            signed(.PUT, "\(Self.prefix)/exchange_third_party_invite/{roomId}") { request, origin in
                try await self.federation.thirdPartyInvites.exchange(
                    try request.object(), in: try request.roomID(), for: origin)
                return .empty
            },
            // Identity servers don't sign their requests.
            Endpoint(
                .PUT, PathPattern("\(Self.prefix)/3pid/onbind"), api: .federation, authentication: .none,
                rateLimit: .invite
            ) { request in
                let body = try await request.json().root
                guard body.isObject else { throw MatrixError.badJSON("The body must be a JSON object.") }
                try await self.federation.thirdPartyInvites.bound(body)
                return .empty
            },
        ]
    }

    private func template(_ name: String, _ kind: MembershipServing.Kind) -> Endpoint {
        signed(.GET, "\(Self.prefix)/\(name)/{roomId}/{userId}") { request, origin in
            .json(
                try await self.federation.memberships.template(
                    kind, for: try UserID.parse(request["userId"]), in: try request.roomID(),
                    versions: request.query.all("ver"), by: origin))
        }
    }
}
