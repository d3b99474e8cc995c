import Homeserver
import MatrixCore

/// Syncing and filters (Client-Server API, "Syncing", "Filtering").
extension ClientAPI {
    var syncEndpoints: [Endpoint] {
        [
            Endpoint(.GET, "/_matrix/client/{version:v3|r0}/sync", authentication: .accessToken, handler: sync),
            Endpoint(
                .POST, "/_matrix/client/{version:v3|r0}/user/{userId}/filter", authentication: .accessToken
            ) { request in
                let requester = try request.own()
                let filter = try await request.json(upTo: 65_536).root
                return .json(["filter_id": .string(try await self.homeserver.filters.put(filter, for: requester))])
            },
            Endpoint(
                .GET, "/_matrix/client/{version:v3|r0}/user/{userId}/filter/{filterId}", authentication: .accessToken
            ) { request in
                .json(try await self.homeserver.filters.get(request["filterId"], for: try request.own()))
            },
        ]
    }

    private func sync(_ request: Request) async throws -> Response {
        let requester = try request.authenticated()
        guard let presence = PresenceService.State(name: request.query["set_presence"] ?? "online") else {
            throw MatrixError.invalidParam("“set_presence” must be offline, online or unavailable.")
        }
        let timeout = try request.integer("timeout") ?? 0
        guard timeout >= 0 else { throw MatrixError.invalidParam("“timeout” is negative.") }
        let filter = try await homeserver.filters.resolve(request.query["filter"], for: requester)
        var wanted = SyncService.Request(
            since: request.query["since"], timeout: timeout, fullState: try request.flag("full_state"), filter: filter)
        wanted.wantsStateAfter = try request.flag("use_state_after")
        wanted.presence = presence
        return .json(try await homeserver.sync.poll(wanted, for: requester))
    }
}

extension Request {
    /// Who asks, when the path names the same user.
    func own() throws -> Requester {
        let requester = try authenticated()
        guard try UserID.parse(self["userId"]) == requester.userID else {
            throw MatrixError.forbidden("You may do this for yourself only.")
        }
        return requester
    }
}
