import Homeserver
import MatrixCore

/// Sliding sync (MSC4186), under the path by which clients ask for it today.
extension ClientAPI {
    var slidingSyncEndpoints: [Endpoint] {
        [
            Endpoint(
                .POST, "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync", authentication: .accessToken,
                onlyReads: true
            ) { request in
                let requester = try request.authenticated()
                // A hundred lists and subscriptions, each with some state that it wants, fit.
                let body = try await request.json(upTo: 524_288).root
                let wanted = try SlidingRequest(
                    body, pos: request.query["pos"], timeout: try request.integer("timeout"),
                    presence: request.query["set_presence"], for: requester.userID)
                return .json(try await self.homeserver.slidingSync.poll(wanted, for: requester))
            }
        ]
    }
}
