/// The dot-separated path of a property of an event (Appendices, Dot-separated property paths).
struct PropertyPath: Sendable, Hashable {
    let components: [ByteString]

    /// A backslash keeps a dot or a backslash literal; before anything else it stands for itself.
    init(_ text: String) {
        var components: [ByteString] = []
        var current: [UInt8] = []
        var bytes = text.utf8.makeIterator()
        var pending = bytes.next()
        while let byte = pending {
            pending = bytes.next()
            if byte == 0x5C, let next = pending, next == 0x2E || next == 0x5C {
                current.append(next)
                pending = bytes.next()
            } else if byte == 0x2E {
                components.append(ByteString(String(decoding: current, as: UTF8.self)))
                current = []
            } else {
                current.append(byte)
            }
        }
        components.append(ByteString(String(decoding: current, as: UTF8.self)))
        self.components = components
    }

    func value(in root: JSONView) -> JSONView? {
        var value = root
        for component in components {
            guard let next = value[component.string] else { return nil }
            value = next
        }
        return value
    }

    var isContentBody: Bool { components == ["content", "body"] }
}
