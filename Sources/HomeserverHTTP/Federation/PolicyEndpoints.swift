import Homeserver
import MatrixCore

/// This server as a policy server (Server-Server API, "Policy Servers").
extension FederationAPI {
    var policyEndpoints: [Endpoint] {
        [
            signed(.POST, "/_matrix/policy/v1/sign") { request, origin in
                let event = try request.object()
                guard let policy = self.homeserver.policySigning else {
                    throw MatrixError(.unrecognized, "This server is no policy server.", status: 404)
                }
                return .json(try await policy.sign(event, for: origin))
            }
        ]
    }
}
