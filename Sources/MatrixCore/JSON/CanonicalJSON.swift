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
///
/// Works on the tape and the bytes themselves; the pointers live only inside ``encode(_:omitting:numbers:)``.
struct CanonicalJSON {
    /// How numbers are written.
    enum Numbers: Sendable {
        /// Only integers within ±(2^53−1). A number that is one in another spelling (`-0`, `1e10`) is respelled, as the
        /// examples of the appendix show.
        case integersOnly
        /// Room versions 1 to 5 do not enforce the format: integers of any size stand as they are, and floats in their
        /// shortest spelling.
        case historical
    }

    private let bytes: UnsafeBufferPointer<UInt8>
    private let tape: UnsafeBufferPointer<UInt64>
    private let keysAreUnique: Bool
    private let numbers: Numbers
    private var output: [UInt8] = []

    /// The canonical encoding of `view`; members of its top level called one of `omitting` are left out.
    static func encode(
        _ view: JSONView, omitting: [String], numbers: Numbers
    ) throws(CanonicalJSONError) -> [UInt8] {
        let document = view.document
        return try document.bytes.withUnsafeBufferPointer { bytes throws(CanonicalJSONError) in
            try document.tape.withUnsafeBufferPointer { tape throws(CanonicalJSONError) in
                var encoder = CanonicalJSON(
                    bytes: bytes, tape: tape, keysAreUnique: document.keysAreUnique, numbers: numbers)
                encoder.output.reserveCapacity(view.range.count)
                try encoder.append(view.index, omitting: omitting)
                return encoder.output
            }
        }
    }

    private init(
        bytes: UnsafeBufferPointer<UInt8>, tape: UnsafeBufferPointer<UInt64>, keysAreUnique: Bool, numbers: Numbers
    ) {
        self.bytes = bytes
        self.tape = tape
        self.keysAreUnique = keysAreUnique
        self.numbers = numbers
    }

    private func word(_ index: Int) -> JSONTapeWord { JSONTapeWord(bits: tape[index]) }

    /// The index behind the value at `index`.
    private func next(_ index: Int) -> Int {
        let word = word(index)
        return word.isContainer ? word.extent : index + 1
    }

    private func token(_ word: JSONTapeWord) -> UnsafeBufferPointer<UInt8> {
        UnsafeBufferPointer(rebasing: bytes[word.start..<word.start + word.extent])
    }

    private mutating func append(_ index: Int, omitting: [String] = []) throws(CanonicalJSONError) {
        let word = word(index)
        switch word.kind {
        case .null, .true, .false: output.append(contentsOf: token(word))
        case .integer: try appendInteger(word)
        case .double: try appendDouble(word)
        case .string: appendString(word)
        case .array:
            output.append(0x5B)
            var element = index + 2
            while element < word.extent {
                if element > index + 2 { output.append(0x2C) }
                try append(element)
                element = next(element)
            }
            output.append(0x5D)
        case .object:
            output.append(0x7B)
            let start = output.count
            if word.flag {
                var key = index + 2
                while key < word.extent {
                    try appendMember(key, omitting, from: start)
                    key = next(key + 1)
                }
            } else {
                for key in sortedKeys(index, word) { try appendMember(key, omitting, from: start) }
            }
            output.append(0x7D)
        }
    }

    @inline(__always)
    private mutating func appendMember(
        _ key: Int, _ omitting: [String], from start: Int
    ) throws(CanonicalJSONError) {
        let keyWord = word(key)
        if !omitting.isEmpty, omitting.contains(where: { JSONView.matches(keyWord, bytes, $0) }) { return }
        if output.count > start { output.append(0x2C) }
        appendString(keyWord)
        output.append(0x3A)
        try append(key + 1)
    }

    /// A key's first eight bytes as a number in byte order, and where it stands on the tape.
    private struct SortKey {
        let prefix: UInt64
        let index: Int
    }

    /// The keys of an object in byte order. Of a key that stands twice only the last is listed.
    private func sortedKeys(_ index: Int, _ object: JSONTapeWord) -> [Int] {
        var keys: [SortKey] = []
        keys.reserveCapacity(Int(truncatingIfNeeded: tape[index + 1] & 0xFFFF_FFFF))
        var key = index + 2
        while key < object.extent {
            let word = word(key)
            if word.flag || !keysAreUnique { return sortedDecodedKeys(index, object) }
            keys.append(SortKey(prefix: prefix(word), index: key))
            key = next(key + 1)
        }
        if keys.count <= 24 {
            // Insertion: short, and often nearly in order.
            for position in 1..<max(keys.count, 1) {
                let moving = keys[position]
                var place = position
                while place > 0, precedes(moving, keys[place - 1]) {
                    keys[place] = keys[place - 1]
                    place -= 1
                }
                keys[place] = moving
            }
        } else {
            keys.sort(by: precedes)
        }
        return keys.map(\.index)
    }

    private func prefix(_ key: JSONTapeWord) -> UInt64 {
        let length = min(key.extent - 2, 8)
        guard let base = bytes.baseAddress, length > 0 else { return 0 }
        let start = base + key.start + 1
        if key.start + 9 <= bytes.count {
            let word = UnsafeRawPointer(start).loadUnaligned(as: UInt64.self).bigEndian
            return length == 8 ? word : word & ~(UInt64.max >> UInt64(length * 8))
        }
        // Too close to the end of the text to read eight bytes at once.
        return (0..<length).reduce(0) { $0 | UInt64(start[$1]) << UInt64(56 - 8 * $1) }
    }

    private func precedes(_ a: SortKey, _ b: SortKey) -> Bool {
        if a.prefix != b.prefix { return a.prefix < b.prefix }
        guard let base = bytes.baseAddress else { return false }
        let x = word(a.index)
        let y = word(b.index)
        return Bytes.isLess(base + x.start + 1, x.extent - 2, base + y.start + 1, y.extent - 2)
    }

    /// The slow way: keys with escapes have to be decoded to be compared, keys that stand twice to be found.
    private func sortedDecodedKeys(_ index: Int, _ object: JSONTapeWord) -> [Int] {
        var last: [ByteString: Int] = [:]
        var key = index + 2
        while key < object.extent {
            last[ByteString(JSONView.decode(word(key), bytes))] = key
            key = next(key + 1)
        }
        return last.sorted { $0.key < $1.key }.map(\.value)
    }

    private mutating func appendString(_ word: JSONTapeWord) {
        // Without escapes there is neither a control character nor anything else that needs one.
        guard word.flag else {
            output.append(contentsOf: token(word))
            return
        }
        let content = UnsafeBufferPointer(rebasing: bytes[word.start + 1..<word.start + word.extent - 1])
        JSONEscapes.decode(content).withUnsafeBufferPointer { JSONEscapes.appendQuoted($0, to: &output) }
    }

    private mutating func appendInteger(_ word: JSONTapeWord) throws(CanonicalJSONError) {
        let token = token(word)
        if token.count == 2, token[0] == 0x2D, token[1] == 0x30 {
            output.append(0x30)
            return
        }
        if numbers == .integersOnly {
            guard let value = JSONNumber.int64(token), value.magnitude <= JSONNumber.maxMagnitude else {
                throw notAllowed(token)
            }
        }
        output.append(contentsOf: token)
    }

    private mutating func appendDouble(_ word: JSONTapeWord) throws(CanonicalJSONError) {
        let token = token(word)
        guard let value = JSONNumber.double(token), value.isFinite else { throw notAllowed(token) }
        switch numbers {
        case .historical:
            output.append(contentsOf: JSONNumber.text(value).utf8)
        case .integersOnly:
            guard let whole = Int64(exactly: value), whole.magnitude <= JSONNumber.maxMagnitude else {
                throw notAllowed(token)
            }
            output.append(contentsOf: String(whole).utf8)
        }
    }

    private func notAllowed(_ token: UnsafeBufferPointer<UInt8>) -> CanonicalJSONError {
        .numberNotAllowed(String(decoding: token.prefix(40), as: UTF8.self))
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
        try CanonicalJSON.encode(self, omitting: omitting, numbers: numbers)
    }
}
