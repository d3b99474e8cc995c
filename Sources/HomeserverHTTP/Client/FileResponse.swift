import Homeserver
import NIOHTTP1

/// Files that strangers have uploaded, as answers (Client-Server API, "Content repository", "Serving inline content"): what a
/// browser might run is offered for saving, and whatever it is, it is shut into a sandbox.
enum FileResponse {
    /// Types that browsers may show in place; everything else is offered for saving.
    private static let inlineTypes: Set<String> = [
        "text/css", "text/plain", "text/csv", "application/json", "application/ld+json", "image/jpeg", "image/gif",
        "image/png", "image/apng", "image/webp", "image/avif", "video/mp4", "video/webm", "video/ogg",
        "video/quicktime", "audio/mp4", "audio/webm", "audio/aac", "audio/mpeg", "audio/ogg", "audio/wave",
        "audio/wav", "audio/x-wav", "audio/x-pn-wav", "audio/flac", "audio/x-flac",
    ]

    private static let policy = """
        sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; style-src 'unsafe-inline'; \
        object-src 'self';
        """

    /// What the file is, and how it may be shown.
    static func headers(of file: MediaService.Download, named name: String = "") -> HTTPHeaders {
        let type = file.contentType.flatMap { isHeaderText($0) ? $0 : nil } ?? "application/octet-stream"
        let isInline = inlineTypes.contains(type.prefix { $0 != ";" }.lowercased())
        return [
            "Content-Type": type,
            "Content-Disposition": disposition(
                isInline ? "inline" : "attachment", name.isEmpty ? file.fileName : name),
        ]
    }

    /// - Parameter name: the name that the client asks for, instead of the uploader's.
    static func make(_ file: MediaService.Download, named name: String = "", for request: Request) -> Response {
        let tag = "\"\(file.tag)\""
        var response = Response(
            headers: [
                "Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff",
                "Cross-Origin-Resource-Policy": "cross-origin", "Referrer-Policy": "no-referrer",
                "Cache-Control": "private, max-age=86400, immutable", "ETag": tag, "Accept-Ranges": "bytes",
            ], body: .file(path: file.path, size: file.size))
        response.headers.add(contentsOf: headers(of: file, named: name))
        if request.headers[canonicalForm: "If-None-Match"].contains(where: { $0 == tag || $0 == "*" }) {
            response.status = .notModified
            response.body = .none
        } else if let range = range(request, of: file.size, tag) {
            response.status = range.isEmpty ? .rangeNotSatisfiable : .partialContent
            let shown = range.isEmpty ? "*" : "\(range.lowerBound)-\(range.upperBound - 1)"
            response.headers.add(name: "Content-Range", value: "bytes \(shown)/\(file.size)")
            response.body =
                range.isEmpty
                ? .none : .file(path: file.path, offset: range.lowerBound, size: Int64(range.count))
        }
        return response
    }

    /// The part of the file that is asked for (RFC 9110 §14.2), as players of videos do; empty if there is no such part, nil for
    /// the whole: also for several parts at once, which nobody has to serve.
    private static func range(_ request: Request, of size: Int64, _ tag: String) -> Range<Int64>? {
        guard let text = request.headers.first(name: "Range"), text.hasPrefix("bytes="), size > 0,
            request.headers.first(name: "If-Range").map({ $0 == tag }) ?? true
        else { return nil }
        let ends = text.dropFirst(6).split(separator: "-", omittingEmptySubsequences: false)
        guard ends.count == 2, ends.allSatisfy({ $0.utf8.allSatisfy { $0 &- 0x30 < 10 } }) else { return nil }
        switch (Int64(ends[0]), Int64(ends[1])) {
        case (let first?, let last?):
            guard first <= last else { return nil }
            return first < size ? first..<min(last, size - 1) + 1 : 0..<0
        case (let first?, nil) where ends[1].isEmpty: return first < size ? first..<size : 0..<0
        case (nil, let count?) where ends[0].isEmpty: return count > 0 ? max(0, size - count)..<size : 0..<0
        default: return nil
        }
    }

    private static func isHeaderText(_ text: String) -> Bool { text.utf8.allSatisfy { (0x20...0x7E).contains($0) } }

    /// `Content-Disposition` with the file's name (RFC 6266): plain where it is plain, percent-encoded UTF-8 otherwise. Only the
    /// last part of a path: where a file is saved is not for its uploader to say.
    private static func disposition(_ kind: String, _ name: String?) -> String {
        let last = name?.split(whereSeparator: { $0 == "/" || $0 == "\\" }).last ?? ""
        let scalars = last.unicodeScalars.filter { !$0.properties.isDefaultIgnorableCodePoint && $0.value >= 0x20 }
        let name = String(String.UnicodeScalarView(scalars).drop { $0 == "." }.prefix(255))
        guard !name.isEmpty else { return kind }
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
