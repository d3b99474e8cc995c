import Homeserver
import MatrixCore
import NIOCore
import NIOHTTP1

/// Files for other servers (Server-Server API, "Content Repository").
extension FederationAPI {
    var mediaEndpoints: [Endpoint] {
        [
            signed(.GET, "\(Self.prefix)/media/download/{mediaId}") { request, _ in
                let file = try await self.homeserver.media.download(try self.media(request))
                return self.multipart(file)
            },
            signed(.GET, "\(Self.prefix)/media/thumbnail/{mediaId}") { request, _ in
                guard let width = try request.integer("width") else { throw MatrixError.missingParam("width") }
                guard let height = try request.integer("height") else { throw MatrixError.missingParam("height") }
                let file = try await self.homeserver.media.thumbnail(
                    try self.media(request), width: width, height: height, crops: request.query["method"] == "crop",
                    animates: try request.flag("animated"))
                return self.multipart(file)
            },
        ]
    }

    private func media(_ request: Request) throws -> MediaService.Reference {
        MediaService.Reference(
            server: homeserver.configuration.serverName.string, mediaID: request["mediaId"],
            wait: try request.integer("timeout_ms") ?? 20_000)
    }

    private func multipart(_ file: MediaService.Download) -> Response {
        let boundary = "roost-\(file.tag)"
        var head = "--\(boundary)\r\nContent-Type: application/json\r\n\r\n{}\r\n--\(boundary)\r\n"
        for header in FileResponse.headers(of: file) { head += "\(header.name): \(header.value)\r\n" }
        let (start, end) = (ByteBuffer(string: "\(head)\r\n"), ByteBuffer(string: "\r\n--\(boundary)--\r\n"))
        return Response(
            headers: ["Content-Type": "multipart/mixed; boundary=\(boundary)"],
            body: .stream(length: start.readableBytes + Int(file.size) + end.readableBytes) { writer in
                let content = try await OpenFile(path: file.path)
                try await writer.write(start)
                var offset: Int64 = 0
                while offset < file.size {
                    let part = try await content.read(at: offset, count: min(Self.piece, Int(file.size - offset)))
                    offset += Int64(part.readableBytes)
                    try await writer.write(part)
                }
                try await writer.write(end)
            })
    }

    /// Bytes of a file that are in memory at a time.
    private static let piece = 128 * 1_024
}
