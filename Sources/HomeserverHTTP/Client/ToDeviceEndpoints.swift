import Homeserver
import MatrixCore

/// Messages to devices (Client-Server API, "Send-to-Device messaging").
extension ClientAPI {
    /// Keys of a large room go to a thousand devices with one request, each with 2 KB of its own.
    static let toDeviceLimit = 8 << 20

    var toDeviceEndpoints: [Endpoint] {
        [
            Endpoint(
                .PUT, "/_matrix/client/{version:v3|r0}/sendToDevice/{eventType}/{txnId}", authentication: .accessToken
            ) { request in
                let body = try await request.json(upTo: Self.toDeviceLimit).root
                guard let messages = try body.optionalObject("messages") else {
                    throw MatrixError.missingParam("messages")
                }
                try await self.homeserver.toDevice.send(
                    request["eventType"], messages, transactionID: request["txnId"], by: try request.authenticated())
                return .empty
            }
        ]
    }
}
