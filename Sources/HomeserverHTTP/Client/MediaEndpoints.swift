import Homeserver
import MatrixCore
import NIOCore

/// Uploads (Client-Server API, module "Content repository").
extension ClientAPI {
    var mediaEndpoints: [Endpoint] {
        [
            Endpoint(
                .POST, "/_matrix/media/{version:v3|r0}/upload", authentication: .accessToken, rateLimit: .media
            ) { request in
                .json(["content_uri": .string(try await self.upload(request))])
            },
            Endpoint(.POST, "/_matrix/media/v1/create", authentication: .accessToken, rateLimit: .media) { request in
                let pending = try await self.homeserver.media.create(by: try request.authenticated())
                return .json([
                    "content_uri": .string(pending.uri), "unused_expires_at": .integer(pending.expiresTS),
                ])
            },
            Endpoint(
                .PUT, "/_matrix/media/{version:v3|r0}/upload/{serverName}/{mediaId}", authentication: .accessToken,
                rateLimit: .media
            ) { request in
                // Before the content is taken, which may be long.
                try await self.homeserver.media.checkPending(
                    server: request["serverName"], mediaID: request["mediaId"], by: try request.authenticated())
                _ = try await self.upload(request, pending: request["mediaId"])
                return .empty
            },
            Endpoint(
                .GET, ["/_matrix/client/v1/media/config", "/_matrix/media/{version:v3|r0}/config"],
                authentication: .accessToken
            ) { _ in .json(["m.upload.size": .integer(Int64(self.homeserver.media.largestUpload))]) },
        ]
    }

    private func upload(_ request: Request, pending: String? = nil) async throws -> String {
        if let length = request.body.declaredLength, length > homeserver.media.largestUpload {
            throw MatrixError.tooLarge("Files of up to \(homeserver.media.largestUpload) bytes may be uploaded here.")
        }
        let upload = try homeserver.media.beginUpload()
        do {
            for try await part in request.body { try part.withUnsafeReadableBytes { try upload.write($0) } }
            return try await upload.finish(
                contentType: request.headers.first(name: "Content-Type"), fileName: request.query["filename"],
                by: try request.authenticated(), pending: pending)
        } catch {
            upload.abandon()
            throw error
        }
    }
}
