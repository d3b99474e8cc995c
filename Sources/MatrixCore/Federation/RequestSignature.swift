/// The `Authorization` header by which a server says who it is (Server-Server API, "Request Authentication").
public struct RequestSignature: Sendable, Hashable {
    public var origin: ServerName
    /// Missing in requests of old servers.
    public var destination: ServerName?
    public var keyID: String
    /// 64 bytes.
    public var signature: [UInt8]

    public init(origin: ServerName, destination: ServerName?, keyID: String, signature: [UInt8]) {
        self.origin = origin
        self.destination = destination
        self.keyID = keyID
        self.signature = signature
    }

    /// The most bytes that a header is read with.
    private static let longest = 4_096

    /// Reads a header: the scheme `X-Matrix` in any case, and parameters with or without quotes, with spaces or without
    /// (RFC 9110 §11.4; old servers quote nothing). Nil if it is none.
    public init?(header: String) {
        let bytes = Array(header.utf8)
        guard bytes.count <= Self.longest, bytes.count > 9,
            bytes[..<8].elementsEqual("x-matrix".utf8, by: { $0 | 0x20 == $1 | 0x20 }),
            bytes[8] == 0x20 || bytes[8] == 0x09, let parameters = Self.parameters(bytes[9...])
        else { return nil }
        guard let origin = parameters["origin"].flatMap({ ServerName($0) }), let keyID = parameters["key"],
            let text = parameters["sig"], let signature = Base64.decode(text), signature.count == 64
        else { return nil }
        if let name = parameters["destination"] {
            guard let destination = ServerName(name) else { return nil }
            self.destination = destination
        }
        self.origin = origin
        self.keyID = keyID
        self.signature = signature
    }

    /// The parameters by their names in lower case; nil if they can't be read or one comes twice.
    private static func parameters(_ bytes: ArraySlice<UInt8>) -> [String: String]? {
        var found: [String: String] = [:]
        var rest = bytes
        func isSpace(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x09 }
        while true {
            rest = rest.drop { isSpace($0) || $0 == UInt8(ascii: ",") }
            if rest.isEmpty { return found }
            guard let equals = rest.firstIndex(of: UInt8(ascii: "=")) else { return nil }
            let name = String(decoding: rest[..<equals].filter { !isSpace($0) }, as: UTF8.self).lowercased()
            rest = rest[(equals + 1)...].drop(while: isSpace)
            var value: [UInt8] = []
            if rest.first == UInt8(ascii: "\"") {
                rest = rest.dropFirst()
                var isClosed = false
                while let byte = rest.popFirst() {
                    if byte == UInt8(ascii: "\"") {
                        isClosed = true
                        break
                    }
                    if byte == UInt8(ascii: "\\") {
                        guard let escaped = rest.popFirst() else { return nil }
                        value.append(escaped)
                    } else {
                        value.append(byte)
                    }
                }
                guard isClosed else { return nil }
            } else {
                value = Array(rest.prefix { $0 != UInt8(ascii: ",") && !isSpace($0) })
                rest = rest.dropFirst(value.count)
            }
            guard !name.isEmpty, found[name] == nil, let text = String(validating: value, as: UTF8.self) else {
                return nil
            }
            found[name] = text
        }
    }

    /// The header as this server sends it.
    public var header: String {
        let to = destination.map { "destination=\"\($0)\"," } ?? ""
        return "X-Matrix origin=\"\(origin)\",\(to)key=\"\(keyID)\",sig=\"\(Base64.encode(signature))\""
    }

    /// Signs a request.
    ///
    /// - Parameters:
    ///   - target: path and query as they are sent.
    ///   - content: the body as canonical JSON; nil where there is none.
    public init(
        signing method: String, target: String, content: [UInt8]?, from origin: ServerName, to destination: ServerName,
        with key: SigningKey
    ) {
        self.init(
            origin: origin, destination: destination, keyID: key.keyID,
            signature: key.sign(
                Self.signed(method: method, target: target, content: content, origin: origin, destination: destination))
        )
    }

    /// Whether the signature is that of a request.
    ///
    /// - Parameter content: the body; nil where there is none.
    public func isValid(method: String, target: String, content: JSONView?, with key: VerifyKey) -> Bool {
        var canonical: [UInt8]?
        if let content {
            guard let bytes = try? content.canonical(numbers: .historical) else { return false }
            canonical = bytes
        }
        let signed = Self.signed(
            method: method, target: target, content: canonical, origin: origin, destination: destination)
        return key.keyID == keyID && key.isValidSignature(signature, of: signed)
    }

    /// The canonical JSON of the object that is signed; its members are sorted here.
    private static func signed(
        method: String, target: String, content: [UInt8]?, origin: ServerName, destination: ServerName?
    ) -> [UInt8] {
        var writer = JSONWriter(capacity: (content?.count ?? 0) + 256)
        writer.beginObject()
        if let content {
            writer.key("content")
            writer.raw(content)
        }
        if let destination {
            writer.key("destination")
            writer.string(destination.string)
        }
        writer.key("method")
        writer.string(method)
        writer.key("origin")
        writer.string(origin.string)
        writer.key("uri")
        writer.string(target)
        writer.endObject()
        return writer.bytes
    }
}
