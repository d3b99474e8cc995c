import MatrixCore

/// The parts of events that a client wants (Client-Server API, "Filtering", `event_fields`): `content.body` stands for that
/// member of the content. A backslash before a dot makes it part of a name.
struct EventFields: Sendable {
    private let paths: [[String]]
    private static let most = 100

    init(_ fields: [String]) {
        paths = fields.prefix(Self.most).map { field in
            var names: [String] = []
            var name = ""
            var isEscaped = false
            for character in field {
                if isEscaped {
                    if character != ".", character != "\\" { name.append("\\") }
                    name.append(character)
                    isEscaped = false
                } else if character == "\\" {
                    isEscaped = true
                } else if character == "." {
                    names.append(name)
                    name = ""
                } else {
                    name.append(character)
                }
            }
            return names + [name]
        }
    }

    func select(from event: JSON) -> JSON {
        var selected: JSON = [:]
        for path in paths { Self.copy(path[...], from: event, to: &selected) }
        return selected
    }

    private static func copy(_ path: ArraySlice<String>, from source: JSON, to target: inout JSON) {
        guard let name = path.first, let value = source[name] else { return }
        if path.count == 1 {
            target[name] = value
            return
        }
        guard value.objectValue != nil else { return }
        var inner = target[name] ?? [:]
        copy(path.dropFirst(), from: value, to: &inner)
        if inner.objectValue?.isEmpty == false { target[name] = inner }
    }
}
