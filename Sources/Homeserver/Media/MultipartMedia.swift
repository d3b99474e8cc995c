#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// Reads a file as servers hand it to one another while it comes: `multipart/mixed`, an object about it and then the file, or where
/// it is to be had (Server-Server API, "Content Repository"). Holds no more of the file than a delimiter is long.
struct MultipartMedia {
    /// The answer is none.
    struct Unusable: Error {}

    /// Of the file's own headers.
    private(set) var contentType: String?
    private(set) var fileName: String?
    /// Where the file is to be had, if it isn't in the answer.
    private(set) var location: String?
    /// Whether the answer has come to its end: all of the file was given out.
    private(set) var isComplete = false

    private let delimiter: [UInt8]
    private let end: [UInt8]
    private var isInFile = false
    /// What has come and could not be told apart yet.
    private var held: [UInt8] = []
    /// Where in it the delimiters before the file, and the end of the file's headers, were found, and up to where the next of them was
    /// looked for: a server may send it byte by byte (A16).
    private var found: [Int] = []
    private var searched = 0

    /// Bytes before the file: the object about it and both parts' headers.
    private static let mostBytesBefore = 65_536

    /// - Returns: nil for other types of content.
    init?(contentType header: String?) {
        guard let boundary = Self.parameter("boundary", of: header ?? "", kind: "multipart/mixed"),
            (1...70).contains(boundary.utf8.count)
        else { return nil }
        delimiter = Array("\r\n--\(boundary)".utf8)
        end = delimiter + Array("--".utf8)
        // The first delimiter may be the first line.
        held = Array("\r\n".utf8)
    }

    /// Takes the next bytes of the answer.
    ///
    /// - Parameter write: is given what of them belongs to the file.
    /// - Throws: ``Unusable``, or what `write` throws.
    mutating func take(_ bytes: UnsafeRawBufferPointer, write: (UnsafeRawBufferPointer) throws -> Void) throws {
        if isComplete || location != nil { return }
        held += bytes
        if !isInFile { try readHeaders() }
        guard isInFile else { return }
        let close = Self.find(end, in: held, from: 0)
        isComplete = close != nil
        let count = close ?? max(held.count - end.count + 1, 0)
        try held.withUnsafeBytes { try write(UnsafeRawBufferPointer(rebasing: $0[..<count])) }
        if isComplete { held = [] } else { held.removeFirst(count) }
    }

    /// Passes over what comes before the file, once all of it is here.
    private mutating func readHeaders() throws {
        let blank = Array("\r\n\r\n".utf8)
        // The object about the file comes first, the file second.
        let patterns = [delimiter, delimiter, blank]
        while found.count < patterns.count {
            let pattern = patterns[found.count]
            guard let place = Self.find(pattern, in: held, from: searched) else {
                searched = max(searched, held.count - pattern.count + 1)
                guard held.count <= Self.mostBytesBefore else { throw Unusable() }
                return
            }
            found.append(place)
            searched = place + pattern.count
        }
        let (second, stop) = (found[1], found[2])
        guard stop <= Self.mostBytesBefore else { throw Unusable() }
        var headers: [String: String] = [:]
        for line in String(decoding: held[(second + delimiter.count)..<stop], as: UTF8.self).split(separator: "\r\n") {
            let parts = line.split(separator: ":", maxSplits: 1)
            guard parts.count == 2 else { continue }
            headers[parts[0].lowercased()] = String(parts[1].drop { $0 == " " })
        }
        contentType = headers["content-type"]
        fileName = headers["content-disposition"].flatMap(Self.fileName)
        location = headers["location"]
        isInFile = location == nil
        held.removeFirst(stop + blank.count)
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

    private static func find(_ pattern: [UInt8], in bytes: [UInt8], from start: Int) -> Int? {
        guard start <= bytes.count else { return nil }
        return bytes.withUnsafeBytes { bytes in
            guard let base = bytes.baseAddress else { return nil }
            var index = start
            while index + pattern.count <= bytes.count {
                let room = bytes.count - pattern.count + 1 - index
                guard let found = memchr(base + index, Int32(pattern[0]), room) else { return nil }
                index = UnsafeRawPointer(found) - base
                if memcmp(base + index, pattern, pattern.count) == 0 { return index }
                index += 1
            }
            return nil
        }
    }
}

extension String {
    fileprivate var trimmed: String {
        String(drop { $0 == " " }.reversed().drop { $0 == " " }.reversed())
    }
}
