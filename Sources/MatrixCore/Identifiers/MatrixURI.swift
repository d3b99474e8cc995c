/// A reference to a user, room or event as a `matrix:` or `matrix.to` URI (Appendices, URIs).
public struct MatrixURI: Sendable, Hashable {
    public enum Target: Sendable, Hashable {
        case user(UserID)
        case room(RoomID)
        case alias(RoomAlias)
        case event(EventID, RoomID)
        /// Deprecated, because an alias can come to point to another room.
        case eventInAlias(EventID, RoomAlias)
    }

    public enum Action: String, Sendable, Hashable {
        case join
        case chat
    }

    public var target: Target
    /// Servers through which the target can be reached.
    public var via: [ServerName]
    /// Only in `matrix:` URIs; an unknown action is none.
    public var action: Action?

    public init(_ target: Target, via: [ServerName] = [], action: Action? = nil) {
        self.target = target
        self.via = via
        self.action = action
    }

    /// The longest URI that is read: two identifiers and a few servers, all of them percent-encoded.
    private static let maxLength = 8_192

    /// Reads either form; nil if `text` is no URI of these kinds.
    public init?(_ text: String) {
        guard text.utf8.count <= Self.maxLength else { return nil }
        let matrixTo = "https://matrix.to/#/"
        if text.utf8.starts(with: matrixTo.utf8) {
            self.init(matrixTo: String(Substring(text.utf8.dropFirst(matrixTo.utf8.count))))
        } else if text.utf8.prefix(7).map({ $0 | 0x20 }) == Array("matrix:".utf8).map({ $0 | 0x20 }) {
            self.init(matrixScheme: String(Substring(text.utf8.dropFirst(7))))
        } else {
            return nil
        }
    }

    /// What follows `https://matrix.to/#/`: `<identifier>[/<event ID>][?<arguments>]`.
    private init?(matrixTo text: String) {
        let (path, query) = Self.splitQuery(text)
        // Old clients don't encode the slashes of event IDs, so only the first slash separates.
        let slash = path.utf8.firstIndex(of: 0x2F)
        guard let identifier = PercentEncoding.decode(path[..<(slash ?? path.endIndex)]) else { return nil }
        var event: EventID?
        if let slash {
            let rest = path[path.utf8.index(after: slash)...]
            if !rest.isEmpty {
                guard let decoded = PercentEncoding.decode(rest), let id = EventID(decoded) else { return nil }
                event = id
            }
        }
        if let user = UserID(identifier), event == nil {
            target = .user(user)
        } else if let room = RoomID(identifier) {
            target = event.map { .event($0, room) } ?? .room(room)
        } else if let alias = RoomAlias(identifier) {
            target = event.map { .eventInAlias($0, alias) } ?? .alias(alias)
        } else {
            return nil
        }
        via = Self.values(of: "via", in: query).compactMap { ServerName($0) }
        action = nil
    }

    /// What follows `matrix:`: `[//authority/]type/id[/type/id][?query][#fragment]`.
    private init?(matrixScheme text: String) {
        let withoutFragment = text[..<(text.utf8.firstIndex(of: 0x23) ?? text.endIndex)]
        let (path, query) = Self.splitQuery(String(withoutFragment))
        var segments = path.utf8.split(separator: 0x2F, omittingEmptySubsequences: false).map { Substring($0) }
        if segments.count > 2, segments[0].isEmpty, segments[1].isEmpty { segments.removeFirst(3) }
        guard segments.count == 2 || segments.count == 4, let id = PercentEncoding.decode(segments[1]) else {
            return nil
        }
        var event: EventID?
        if segments.count == 4 {
            guard segments[2] == "e" || segments[2] == "event", let eventID = PercentEncoding.decode(segments[3]),
                let parsed = EventID("$" + eventID)
            else { return nil }
            event = parsed
        }
        switch segments[0] {
        case "u", "user":
            guard event == nil, let user = UserID("@" + id) else { return nil }
            target = .user(user)
        case "roomid":
            guard let room = RoomID("!" + id) else { return nil }
            target = event.map { .event($0, room) } ?? .room(room)
        case "r", "room":
            guard let alias = RoomAlias("#" + id) else { return nil }
            target = event.map { .eventInAlias($0, alias) } ?? .alias(alias)
        default:
            return nil
        }
        via = Self.values(of: "via", in: query).compactMap { ServerName($0) }
        action = Self.values(of: "action", in: query).first.flatMap(Action.init)
    }

    /// The `matrix:` form.
    public var matrixScheme: String {
        func bare(_ identifier: some Identifier) -> String {
            PercentEncoding.encode(Substring(identifier.string.utf8.dropFirst()))
        }
        let path =
            switch target {
            case .user(let user): "u/\(bare(user))"
            case .room(let room): "roomid/\(bare(room))"
            case .alias(let alias): "r/\(bare(alias))"
            case .event(let event, let room): "roomid/\(bare(room))/e/\(bare(event))"
            case .eventInAlias(let event, let alias): "r/\(bare(alias))/e/\(bare(event))"
            }
        var query = via.map { "via=" + PercentEncoding.encode($0.string[...]) }
        if let action { query.append("action=\(action.rawValue)") }
        return "matrix:\(path)" + (query.isEmpty ? "" : "?" + query.joined(separator: "&"))
    }

    /// The `matrix.to` form; it has no place for an action.
    public var matrixTo: String {
        func encode(_ identifier: some Identifier) -> String { PercentEncoding.encode(identifier.string[...]) }
        let path =
            switch target {
            case .user(let user): encode(user)
            case .room(let room): encode(room)
            case .alias(let alias): encode(alias)
            case .event(let event, let room): "\(encode(room))/\(encode(event))"
            case .eventInAlias(let event, let alias): "\(encode(alias))/\(encode(event))"
            }
        let query = via.map { "via=" + PercentEncoding.encode($0.string[...]) }
        return "https://matrix.to/#/\(path)" + (query.isEmpty ? "" : "?" + query.joined(separator: "&"))
    }

    private static func splitQuery(_ text: String) -> (path: String, query: Substring) {
        guard let mark = text.utf8.firstIndex(of: 0x3F) else { return (text, "") }
        return (String(text[..<mark]), text[text.utf8.index(after: mark)...])
    }

    private static func values(of name: String, in query: Substring) -> [String] {
        query.utf8.split(separator: 0x26).compactMap { item in
            let parts = item.split(separator: 0x3D, maxSplits: 1, omittingEmptySubsequences: false)
            guard parts.count == 2, parts[0].elementsEqual(name.utf8) else { return nil }
            return PercentEncoding.decode(Substring(parts[1]))
        }
    }
}

/// RFC 3986 §2.1.
enum PercentEncoding {
    /// Encodes all but what a path segment may contain as it is, less `!` and `$`, which sigils are.
    static func encode(_ text: Substring) -> String {
        let hex = Array("0123456789ABCDEF".utf8)
        var output: [UInt8] = []
        for byte in text.utf8 {
            switch byte {
            case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x2D, 0x2E, 0x5F, 0x7E, 0x3A, 0x40, 0x21, 0x24:
                output.append(byte)
            default:
                output += [0x25, hex[Int(byte >> 4)], hex[Int(byte & 15)]]
            }
        }
        return String(decoding: output, as: UTF8.self)
    }

    /// Nil for an incomplete escape, and if the result is not UTF-8.
    static func decode(_ text: Substring) -> String? {
        var output: [UInt8] = []
        var bytes = text.utf8.makeIterator()
        while let byte = bytes.next() {
            guard byte == 0x25 else {
                output.append(byte)
                continue
            }
            guard let high = bytes.next().flatMap(digit), let low = bytes.next().flatMap(digit) else { return nil }
            output.append(high << 4 | low)
        }
        return String(validating: output, as: UTF8.self)
    }

    private static func digit(_ byte: UInt8) -> UInt8? {
        switch byte {
        case 0x30...0x39: byte - 0x30
        case 0x41...0x46: byte - 0x41 + 10
        case 0x61...0x66: byte - 0x61 + 10
        default: nil
        }
    }
}
