import Homeserver
import MatrixCore

/// Transactions (Server-Server API, "Transactions").
extension FederationAPI {
    var transactionEndpoints: [Endpoint] {
        [
            signed(.PUT, "\(Self.prefix)/send/{txnId}") { request, origin in
                .json(
                    try await self.federation.inbox.receive(
                        try request.object(), transactionID: request["txnId"], from: origin))
            }
        ]
    }
}
