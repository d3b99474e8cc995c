import MatrixCore

/// A file as servers hand it to one another: `multipart/mixed`, an object about it and then the file, or where it is to be had
/// (Server-Server API, "Content Repository").
struct MultipartMedia {
    enum Content: Equatable {
        /// Where the bytes lie in the answer.
        case bytes(Range<Int>)
        case location(String)
    }

    let contentType: String?
    let fileName: String?
    let content: Content

    private static let mostHeaderBytes = 16_384

    /// - Returns: nil if the answer is none.
    init?(_ body: [UInt8], contentType header: String?) {
        guard let boundary = Self.parameter("boundary", of: header ?? "", kind: "multipart/mixed"),
            (1...70).contains(boundary.utf8.count)
        else { return nil }
        let delimiter = Array("--\(boundary)".utf8)
        // The object about the file comes first, the file second.
        guard let first = Self.find(delimiter, in: body, from: 0),
            let second = Self.find(Array("\r\n".utf8) + delimiter, in: body, from: first + delimiter.count)
        else { return nil }
        let start = second + 2 + delimiter.count
        guard let end = Self.find(Array("\r\n\r\n".utf8), in: body, from: start, upTo: start + Self.mostHeaderBytes)
        else { return nil }
        var headers: [String: String] = [:]
        for line in String(decoding: body[start..<end], as: UTF8.self).split(separator: "\r\n") {
            let parts = line.split(separator: ":", maxSplits: 1)
            guard parts.count == 2 else { continue }
            headers[parts[0].lowercased()] = String(parts[1].drop { $0 == " " })
        }
        contentType = headers["content-type"]
        fileName = headers["content-disposition"].flatMap(Self.fileName)
        if let location = headers["location"] {
            content = .location(location)
            return
        }
        // The file may hold what looks like a delimiter; the last one counts.
        guard let close = Self.findLast(Array("\r\n".utf8) + delimiter + Array("--".utf8), in: body), close >= end + 4
        else { return nil }
        content = .bytes((end + 4)..<close)
    }

    /// The name in a `Content-Disposition` (RFC 6266); that in UTF-8 counts, if there are both.
    static func fileName(of disposition: String) -> String? {
        let prefix = "utf-8''"
        if let encoded = parameter("filename*", of: disposition, kind: nil), encoded.lowercased().hasPrefix(prefix) {
            var bytes: [UInt8] = []
            var rest = encoded.utf8.dropFirst(prefix.utf8.count)
            while let byte = rest.popFirst() {
                if byte == UInt8(ascii: "%"),
                    let value = UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16)
                {
                    bytes.append(value)
                    rest = rest.dropFirst(2)
                } else {
                    bytes.append(byte)
                }
            }
            return String(validating: bytes, as: UTF8.self)
        }
        return parameter("filename", of: disposition, kind: nil)
    }

    /// A parameter of a header such as `multipart/mixed; boundary=x`.
    static func parameter(_ name: String, of header: String, kind: String?) -> String? {
        let parts = header.split(separator: ";")
        guard let first = parts.first else { return nil }
        if let kind, first.filter({ $0 != " " }).lowercased() != kind { return nil }
        for part in parts.dropFirst() {
            let pair = part.split(separator: "=", maxSplits: 1)
            guard pair.count == 2, pair[0].filter({ $0 != " " }).lowercased() == name else { continue }
            return pair[1].filter { $0 != "\"" }.trimmed
        }
        return nil
    }

    private static func find(_ pattern: [UInt8], in body: [UInt8], from start: Int, upTo end: Int? = nil) -> Int? {
        let last = min(end ?? body.count, body.count) - pattern.count
        guard start >= 0, start <= last else { return nil }
        return (start...last).first { index in
            body[index] == pattern[0] && body[index..<(index + pattern.count)].elementsEqual(pattern)
        }
    }

    private static func findLast(_ pattern: [UInt8], in body: [UInt8]) -> Int? {
        let last = body.count - pattern.count
        guard last >= 0 else { return nil }
        return (0...last).reversed().first { index in
            body[index] == pattern[0] && body[index..<(index + pattern.count)].elementsEqual(pattern)
        }
    }
}

extension String {
    fileprivate var trimmed: String {
        String(drop { $0 == " " }.reversed().drop { $0 == " " }.reversed())
    }
}
