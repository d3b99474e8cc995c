import Homeserver
import MatrixCore
import NIOCore

/// Uploads and downloads (Client-Server API, module "Content repository").
extension ClientAPI {
    var mediaEndpoints: [Endpoint] {
        [
            Endpoint(
                .POST, "/_matrix/media/{version:v3|r0}/upload", authentication: .accessToken, rateLimit: .media,
                handler: upload),
            Endpoint(
                .GET, ["/_matrix/client/v1/media/config", "/_matrix/media/{version:v3|r0}/config"],
                authentication: .accessToken
            ) { _ in .json(["m.upload.size": .integer(Int64(self.homeserver.media.largestUpload))]) },
            Endpoint(
                .GET,
                [
                    "/_matrix/client/v1/media/download/{serverName}/{mediaId}",
                    "/_matrix/client/v1/media/download/{serverName}/{mediaId}/{fileName}",
                ], authentication: .accessToken, rateLimit: .media, handler: download),
        ]
    }

    private func upload(_ request: Request) async throws -> Response {
        if let length = request.body.declaredLength, length > homeserver.media.largestUpload {
            throw MatrixError.tooLarge("Files of up to \(homeserver.media.largestUpload) bytes may be uploaded here.")
        }
        let upload = try homeserver.media.beginUpload()
        do {
            for try await part in request.body { try part.withUnsafeReadableBytes { try upload.write($0) } }
            let uri = try await upload.finish(
                contentType: request.headers.first(name: "Content-Type"), fileName: request.query["filename"],
                by: try request.authenticated())
            return .json(["content_uri": .string(uri)])
        } catch {
            upload.abandon()
            throw error
        }
    }

    /// Types that browsers may show in place; everything else is offered for saving (Client-Server API, "Serving
    /// inline content").
    private static let inlineTypes: Set<String> = [
        "text/css", "text/plain", "text/csv", "application/json", "application/ld+json", "image/jpeg", "image/gif",
        "image/png", "image/apng", "image/webp", "image/avif", "video/mp4", "video/webm", "video/ogg",
        "video/quicktime",
        "audio/mp4", "audio/webm", "audio/aac", "audio/mpeg", "audio/ogg", "audio/wave", "audio/wav", "audio/x-wav",
        "audio/x-pn-wav", "audio/flac", "audio/x-flac",
    ]

    private func download(_ request: Request) async throws -> Response {
        // Files of this server are there or not, without waiting.
        _ = try request.integer("timeout_ms")
        let file = try await homeserver.media.download(server: request["serverName"], mediaID: request["mediaId"])
        let type = file.contentType ?? "application/octet-stream"
        let essence = type.prefix { $0 != ";" }.lowercased()
        let isInline = Self.inlineTypes.contains(essence)
        let name = request["fileName"].isEmpty ? file.fileName : request["fileName"]
        return Response(
            status: .ok,
            headers: [
                "Content-Type": Self.isHeaderText(type) ? type : "application/octet-stream",
                "Content-Disposition": Self.disposition(isInline ? "inline" : "attachment", name),
                "Cross-Origin-Resource-Policy": "cross-origin", "X-Content-Type-Options": "nosniff",
                "Content-Security-Policy":
                    "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; style-src 'unsafe-inline'; object-src 'self';",
                "Cache-Control": "private, max-age=86400, immutable",
            ], body: .file(path: file.path, size: file.size))
    }

    private static func isHeaderText(_ text: String) -> Bool { text.utf8.allSatisfy { (0x20...0x7E).contains($0) } }

    /// `Content-Disposition` with the file's name (RFC 6266): plain where it is plain, percent-encoded UTF-8 otherwise.
    private static func disposition(_ kind: String, _ name: String?) -> String {
        guard let name, !name.isEmpty else { return kind }
        let isPlain = name.utf8.allSatisfy { (0x20...0x7E).contains($0) && $0 != 0x22 && $0 != 0x5C }
        if isPlain { return "\(kind); filename=\"\(name)\"" }
        let digits = Array("0123456789ABCDEF".utf8)
        let encoded = name.utf8.flatMap { byte -> [UInt8] in
            let isUnreserved =
                (0x30...0x39).contains(byte) || (0x41...0x5A).contains(byte) || (0x61...0x7A).contains(byte)
                || [0x2D, 0x2E, 0x5F, 0x7E].contains(byte)
            return isUnreserved ? [byte] : [UInt8(ascii: "%"), digits[Int(byte >> 4)], digits[Int(byte & 15)]]
        }
        return "\(kind); filename*=utf-8''\(String(decoding: encoded, as: UTF8.self))"
    }
}
