import Homeserver
import MatrixCore
import NIOHTTP1

/// Files for other servers (Server-Server API, "Content Repository").
extension FederationAPI {
    var mediaEndpoints: [Endpoint] {
        [
            signed(.GET, "\(Self.prefix)/media/download/{mediaId}") { request, _ in
                let file = try await self.homeserver.media.download(try self.media(request))
                return try await self.multipart(file)
            },
            signed(.GET, "\(Self.prefix)/media/thumbnail/{mediaId}") { request, _ in
                guard let width = try request.integer("width") else { throw MatrixError.missingParam("width") }
                guard let height = try request.integer("height") else { throw MatrixError.missingParam("height") }
                let file = try await self.homeserver.media.thumbnail(
                    try self.media(request), width: width, height: height, crops: request.query["method"] == "crop",
                    animates: try request.flag("animated"))
                return try await self.multipart(file)
            },
        ]
    }

    private func media(_ request: Request) throws -> MediaService.Reference {
        MediaService.Reference(
            server: homeserver.configuration.serverName.string, mediaID: request["mediaId"],
            wait: try request.integer("timeout_ms") ?? 20_000)
    }

    private func multipart(_ file: MediaService.Download) async throws -> Response {
        let boundary = "roost-\(file.tag)"
        var head = "--\(boundary)\r\nContent-Type: application/json\r\n\r\n{}\r\n--\(boundary)\r\n"
        for header in FileResponse.headers(of: file) { head += "\(header.name): \(header.value)\r\n" }
        let content = try await homeserver.media.content(of: file)
        return Response(
            headers: ["Content-Type": "multipart/mixed; boundary=\(boundary)"],
            body: .bytes(Array("\(head)\r\n".utf8) + content + Array("\r\n--\(boundary)--\r\n".utf8)))
    }
}
