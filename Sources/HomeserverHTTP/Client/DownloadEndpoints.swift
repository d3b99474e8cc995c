import Homeserver
import MatrixCore
import NIOHTTP1

/// Downloads and thumbnails (Client-Server API, module "Content repository"), with access token and, of old files, without.
extension ClientAPI {
    var downloadEndpoints: [Endpoint] {
        let download = "/media/download/{serverName}/{mediaId}", thumbnail = "/media/thumbnail/{serverName}/{mediaId}"
        let old = "/_matrix/media/{version:v3|r0|v1}"
        return [
            Endpoint(
                .GET,
                [
                    PathPattern("/_matrix/client/v1\(download)"),
                    PathPattern("/_matrix/client/v1\(download)/{fileName}"),
                ], authentication: .accessToken, rateLimit: .media
            ) { request in
                let file = try await self.homeserver.media.download(try request.media())
                return FileResponse.make(file, named: request["fileName"], for: request)
            },
            Endpoint(
                .GET, PathPattern("/_matrix/client/v1\(thumbnail)"), authentication: .accessToken,
                rateLimit: .media
            ) { request in
                FileResponse.make(try await self.thumbnail(request, try request.media()), for: request)
            },
            Endpoint(
                .GET,
                [
                    PathPattern("\(old)/download/{serverName}/{mediaId}"),
                    PathPattern("\(old)/download/{serverName}/{mediaId}/{fileName}"),
                ], authentication: .none, rateLimit: .media
            ) { request in
                let file = try await self.homeserver.media.download(try request.unauthenticatedMedia())
                return FileResponse.make(file, named: request["fileName"], for: request)
            },
            Endpoint(
                .GET, PathPattern("\(old)/thumbnail/{serverName}/{mediaId}"), authentication: .none, rateLimit: .media
            ) { request in
                FileResponse.make(try await self.thumbnail(request, try request.unauthenticatedMedia()), for: request)
            },
        ]
    }

    private func thumbnail(_ request: Request, _ media: MediaService.Reference) async throws -> MediaService.Download {
        guard let width = try request.integer("width") else { throw MatrixError.missingParam("width") }
        guard let height = try request.integer("height") else { throw MatrixError.missingParam("height") }
        let crops: Bool
        switch request.query["method"] {
        case nil, "scale": crops = false
        case "crop": crops = true
        default: throw MatrixError.invalidParam("“method” must be crop or scale.")
        }
        return try await homeserver.media.thumbnail(
            media, width: width, height: height, crops: crops, animates: try request.flag("animated"))
    }
}

extension Request {
    fileprivate func media() throws -> MediaService.Reference {
        MediaService.Reference(
            server: self["serverName"], mediaID: self["mediaId"], wait: try integer("timeout_ms") ?? 20_000)
    }

    fileprivate func unauthenticatedMedia() throws -> MediaService.Reference {
        // Nothing is fetched from other servers or elsewhere for those who don't say who they are.
        if query["allow_remote"] != nil { _ = try flag("allow_remote") }
        if query["allow_redirect"] != nil { _ = try flag("allow_redirect") }
        var media = try media()
        media.isUnauthenticated = true
        return media
    }
}
