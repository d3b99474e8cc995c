/// Why a value has no canonical encoding.
public enum CanonicalJSONError: Error, Sendable, Hashable, CustomStringConvertible {
    /// A number that is not an integer within ±(2^53−1).
    case numberNotAllowed(String)
    /// ``JSON/raw(_:)`` did not hold JSON.
    case invalidRawJSON(JSONError)

    public var description: String {
        switch self {
        case .numberNotAllowed(let text): "canonical JSON has only integers within ±(2^53−1), not \(text)"
        case .invalidRawJSON(let error): error.description
        }
    }
}

/// Appendices, Canonical JSON: the shortest encoding, keys sorted by code point, integers only.
enum CanonicalJSON {
    /// How numbers are written.
    enum Numbers: Sendable {
        /// Only integers within ±(2^53−1). A number that is one in another spelling (`-0`, `1e10`) is respelled, as the
        /// examples of the appendix show.
        case integersOnly
        /// Room versions 1 to 5 do not enforce the format: integers of any size stand as they are, and floats in their
        /// shortest spelling.
        case historical
    }

    /// Appends the canonical encoding of `view`; members of its top level called one of `omitting` are left out.
    static func append(
        _ view: JSONView, omitting: [String], numbers: Numbers, to output: inout [UInt8]
    ) throws(CanonicalJSONError) {
        let word = view.word
        switch word.kind {
        case .null, .true, .false:
            output.append(contentsOf: view.raw)
        case .integer, .double:
            try appendNumber(view, numbers: numbers, to: &output)
        case .string:
            appendString(view, to: &output)
        case .array:
            output.append(0x5B)
            var isFirst = true
            for element in view.elements {
                if !isFirst { output.append(0x2C) }
                isFirst = false
                try append(element, omitting: [], numbers: numbers, to: &output)
            }
            output.append(0x5D)
        case .object:
            try appendObject(view, omitting: omitting, numbers: numbers, to: &output)
        }
    }

    private static func appendObject(
        _ view: JSONView, omitting: [String], numbers: Numbers, to output: inout [UInt8]
    ) throws(CanonicalJSONError) {
        output.append(0x7B)
        var isFirst = true
        func appendMember(_ key: JSONView, _ value: JSONView) throws(CanonicalJSONError) {
            if !omitting.isEmpty, omitting.contains(where: { key.isString($0) }) { return }
            if !isFirst { output.append(0x2C) }
            isFirst = false
            appendString(key, to: &output)
            output.append(0x3A)
            try append(value, omitting: [], numbers: numbers, to: &output)
        }
        var members = view.members
        if view.word.flag {
            while let (key, value) = members.nextViews() { try appendMember(key, value) }
        } else {
            for (key, value) in sortedMembers(of: view) { try appendMember(key, value) }
        }
        output.append(0x7D)
    }

    /// Members by the bytes of their decoded keys. Of a key that stands twice the last member stays.
    private static func sortedMembers(of view: JSONView) -> [(JSONView, JSONView)] {
        var plain: [(key: JSONView, value: JSONView)] = []
        plain.reserveCapacity(view.count)
        var hasEscapes = false
        var members = view.members
        while let (key, value) = members.nextViews() {
            plain.append((key, value))
            hasEscapes = hasEscapes || key.word.flag
        }
        if !hasEscapes, view.document.keysAreUnique {
            return view.document.bytes.withUnsafeBufferPointer { bytes in
                guard let base = bytes.baseAddress else { return [] }
                return plain.sorted { a, b in
                    let x = a.key.word
                    let y = b.key.word
                    return Bytes.isLess(base + x.start + 1, x.extent - 2, base + y.start + 1, y.extent - 2)
                }
            }
        }
        var last: [ByteString: (JSONView, JSONView)] = [:]
        for (key, value) in plain { last[ByteString(key.string ?? "")] = (key, value) }
        return last.sorted { $0.key < $1.key }.map(\.value)
    }

    private static func appendString(_ view: JSONView, to output: inout [UInt8]) {
        let word = view.word
        view.document.bytes.withUnsafeBufferPointer { bytes in
            // Without escapes there is neither a control character nor anything else that needs one.
            guard word.flag else {
                output.append(
                    contentsOf: UnsafeBufferPointer(rebasing: bytes[word.start..<word.start + word.extent]))
                return
            }
            let content = UnsafeBufferPointer(rebasing: bytes[word.start + 1..<word.start + word.extent - 1])
            JSONEscapes.decode(content).withUnsafeBufferPointer { JSONEscapes.appendQuoted($0, to: &output) }
        }
    }

    private static func appendNumber(
        _ view: JSONView, numbers: Numbers, to output: inout [UInt8]
    ) throws(CanonicalJSONError) {
        if view.kind == .integer {
            let token = view.raw
            if token.count == 2, token.first == 0x2D, token.last == 0x30 {
                output.append(0x30)
                return
            }
            if numbers == .historical || view.integer != nil {
                output.append(contentsOf: token)
                return
            }
        } else if let value = view.double {
            switch numbers {
            case .historical:
                output.append(contentsOf: JSONNumber.text(value).utf8)
                return
            case .integersOnly:
                if let whole = Int64(exactly: value), whole.magnitude <= JSONNumber.maxMagnitude {
                    output.append(contentsOf: String(whole).utf8)
                    return
                }
            }
        }
        throw .numberNotAllowed(String(decoding: view.raw.prefix(40), as: UTF8.self))
    }
}

extension JSONView {
    /// The canonical encoding, without the top-level members called one of `omitting` (Appendices, Canonical JSON).
    ///
    /// - Throws: ``CanonicalJSONError`` if a number is not an integer within ±(2^53−1).
    public func canonical(omitting: [String] = []) throws(CanonicalJSONError) -> [UInt8] {
        try canonical(omitting: omitting, numbers: .integersOnly)
    }

    func canonical(omitting: [String] = [], numbers: CanonicalJSON.Numbers) throws(CanonicalJSONError) -> [UInt8] {
        var output: [UInt8] = []
        output.reserveCapacity(range.count)
        try CanonicalJSON.append(self, omitting: omitting, numbers: numbers, to: &output)
        return output
    }
}
