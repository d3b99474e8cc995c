import Homeserver
import MatrixCore

/// Interactive authentication in a browser (Client-Server API, "Fallback").
extension ClientAPI {
    var fallbackEndpoints: [Endpoint] {
        let path: PathPattern = "/_matrix/client/{version:v3|r0}/auth/{authType}/fallback/web"
        return [
            Endpoint(.GET, path, authentication: .none, rateLimit: .general) { request in
                try await self.page {
                    guard let session = request.query["session"] else { throw MatrixError.missingParam("session") }
                    let stage = try await self.homeserver.accounts.fallbackStage(
                        request["authType"], session: session)
                    return self.page(stage, session, isSecondTry: false)
                }
            },
            Endpoint(.POST, path, authentication: .none, rateLimit: .login) { request in
                try await self.page {
                    let form = Query(String(decoding: try await request.collect(upTo: 16_384), as: UTF8.self))
                    guard let session = form["session"] else { throw MatrixError.missingParam("session") }
                    let stage = try await self.homeserver.accounts.completeFallbackStage(
                        request["authType"], session: session, entered: form["entered"] ?? "")
                    return self.page(stage, session, isSecondTry: true)
                }
            },
        ]
    }

    private func page(_ stage: AccountService.FallbackStage, _ session: String, isSecondTry: Bool) -> Response {
        FallbackPage.make(
            stage, session: session, serverName: homeserver.configuration.serverName.string, isSecondTry: isSecondTry)
    }

    /// Failures are pages too: a person looks at them.
    private func page(_ work: () async throws -> Response) async throws -> Response {
        do { return try await work() } catch let error as MatrixError { return FallbackPage.problem(error) }
    }
}
