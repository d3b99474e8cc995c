/// One value of a ``JSONDocument``; cheap to copy, keeps the document alive.
///
/// The accessors answer nil for a value of another kind: a missing member and one of the wrong type are both
/// something that the caller has not got.
public struct JSONView: Sendable {
    public let document: JSONDocument
    let index: Int

    @inline(__always) init(document: JSONDocument, index: Int) {
        self.document = document
        self.index = index
    }

    @inline(__always) var word: JSONTapeWord { JSONTapeWord(bits: document.tape[index]) }

    public var kind: JSONKind { word.kind }
    public var isNull: Bool { kind == .null }
    public var isObject: Bool { kind == .object }
    public var isArray: Bool { kind == .array }

    public var bool: Bool? {
        switch kind {
        case .true: true
        case .false: false
        default: nil
        }
    }

    /// Only integers, and only within ±(2^53−1), the range every JSON library reads exactly.
    public var integer: Int64? {
        guard let value = int64, value.magnitude <= JSONNumber.maxMagnitude else { return nil }
        return value
    }

    /// An integer of the whole 64-bit range: `depth` in room versions 1 to 5, old power levels.
    var int64: Int64? {
        guard kind == .integer else { return nil }
        return withToken(JSONNumber.int64)
    }

    /// Any number; nil as well if its magnitude is beyond a double's.
    public var double: Double? {
        guard kind == .integer || kind == .double, let value = withToken(JSONNumber.double), value.isFinite else {
            return nil
        }
        return value
    }

    public var string: String? {
        let word = word
        guard word.kind == .string else { return nil }
        return document.bytes.withUnsafeBufferPointer { Self.decode(word, $0) }
    }

    /// The string that a word stands for.
    static func decode(_ word: JSONTapeWord, _ bytes: UnsafeBufferPointer<UInt8>) -> String {
        let content = UnsafeBufferPointer(rebasing: bytes[word.start + 1..<word.start + word.extent - 1])
        return word.flag
            ? String(decoding: JSONEscapes.decode(content), as: UTF8.self) : String(decoding: content, as: UTF8.self)
    }

    static func matches(_ word: JSONTapeWord, _ bytes: UnsafeBufferPointer<UInt8>, _ text: String) -> Bool {
        text.withBytes { matches(word, bytes, $0) }
    }

    /// Whether this is the string `text`, byte for byte.
    public func isString(_ text: String) -> Bool {
        let word = word
        return word.kind == .string && keyMatches(word, text)
    }

    /// The number of elements or members; 0 for a scalar.
    public var count: Int {
        word.isContainer ? Int(truncatingIfNeeded: document.tape[index + 1] & 0xFFFF_FFFF) : 0
    }

    /// Where the value stands in the document's bytes, quotes and brackets included.
    public var range: Range<Int> {
        let word = word
        return word.start..<(word.isContainer ? Int(document.tape[index + 1] >> 32) : word.start + word.extent)
    }

    /// The value's bytes as they were written.
    public var raw: ArraySlice<UInt8> { document.bytes[range] }

    /// The member called `key` compared by bytes, nil if there is none or this is no object.
    public subscript(_ key: String) -> JSONView? {
        let word = word
        guard word.kind == .object else { return nil }
        return document.tape.withUnsafeBufferPointer { tape in
            document.bytes.withUnsafeBufferPointer { bytes in
                key.withBytes { wanted in
                    var found: JSONView?
                    var position = index + 2
                    while position < word.extent {
                        let keyWord = JSONTapeWord(bits: tape[position])
                        if Self.matches(keyWord, bytes, wanted) {
                            found = JSONView(document: document, index: position + 1)
                            if document.keysAreUnique { break }
                        }
                        let value = JSONTapeWord(bits: tape[position + 1])
                        position = value.isContainer ? value.extent : position + 2
                    }
                    return found
                }
            }
        }
    }

    /// The elements of an array; empty for anything else.
    public var elements: Elements { Elements(self) }

    /// The members of an object in the order of the text; empty for anything else.
    public var members: Members { Members(self) }

    public struct Elements: Sequence, IteratorProtocol, Sendable {
        private let document: JSONDocument
        private var position: Int
        private let end: Int

        fileprivate init(_ view: JSONView) {
            let word = view.word
            document = view.document
            position = view.index + 2
            end = word.kind == .array ? word.extent : 0
        }

        public mutating func next() -> JSONView? {
            guard position < end else { return nil }
            let view = JSONView(document: document, index: position)
            let word = view.word
            position = word.isContainer ? word.extent : position + 1
            return view
        }
    }

    public struct Members: Sequence, IteratorProtocol, Sendable {
        private let document: JSONDocument
        private var position: Int
        private let end: Int

        fileprivate init(_ view: JSONView) {
            let word = view.word
            document = view.document
            position = view.index + 2
            end = word.kind == .object ? word.extent : 0
        }

        public mutating func next() -> (key: String, value: JSONView)? {
            guard let (key, value) = nextViews() else { return nil }
            return (key.string ?? "", value)
        }

        /// The next member with its key as a view, so that the key's place is known and nothing is decoded.
        mutating func nextViews() -> (key: JSONView, value: JSONView)? {
            guard position < end else { return nil }
            let key = JSONView(document: document, index: position)
            let value = JSONView(document: document, index: position + 1)
            let word = value.word
            position = word.isContainer ? word.extent : position + 2
            return (key, value)
        }
    }

    private func withToken<R>(_ body: (UnsafeBufferPointer<UInt8>) -> R) -> R {
        let word = word
        return document.bytes.withUnsafeBufferPointer { bytes in
            body(UnsafeBufferPointer(rebasing: bytes[word.start..<word.start + word.extent]))
        }
    }

    private func keyMatches(_ word: JSONTapeWord, _ text: String) -> Bool {
        document.bytes.withUnsafeBufferPointer { bytes in text.withBytes { Self.matches(word, bytes, $0) } }
    }

    @inline(__always)
    private static func matches(
        _ word: JSONTapeWord, _ bytes: UnsafeBufferPointer<UInt8>, _ wanted: UnsafeBufferPointer<UInt8>
    ) -> Bool {
        if word.flag {
            let content = UnsafeBufferPointer(rebasing: bytes[word.start + 1..<word.start + word.extent - 1])
            return JSONEscapes.decode(content).elementsEqual(wanted)
        }
        guard word.extent - 2 == wanted.count, let base = bytes.baseAddress else { return false }
        guard let wantedBase = wanted.baseAddress else { return wanted.isEmpty }
        return Bytes.isEqual(base + word.start + 1, wantedBase, wanted.count)
    }
}
