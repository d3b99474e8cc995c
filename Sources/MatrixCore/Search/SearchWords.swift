/// The words by which an event is found (Client-Server API, "Server Side Search").
///
/// A word is a run of letters and digits in lower case. Scripts that put no spaces between words are cut into pairs of
/// characters: who looks for three characters in a row then looks for two pairs.
public enum SearchWords {
    /// Words of one event that count; the rest of a very long message isn't found.
    public static let most = 200
    /// Bytes of a word that count.
    public static let longest = 40

    /// The parts of events that can be searched, by the names that clients give them, and the types of events they belong to.
    public enum Key: String, Sendable, CaseIterable {
        case body = "content.body"
        case name = "content.name"
        case topic = "content.topic"

        public var eventType: String {
            switch self {
            case .body: "m.room.message"
            case .name: "m.room.name"
            case .topic: "m.room.topic"
            }
        }
    }

    /// The texts of an event that can be searched.
    ///
    /// - Parameter keys: those that are wanted.
    public static func texts(type: String, content: JSONView, keys: Set<Key> = Set(Key.allCases)) -> [String] {
        guard let key = Key.allCases.first(where: { type.hasSameBytes(as: $0.eventType) }), keys.contains(key)
        else { return [] }
        switch key {
        case .body: return [content["body"]?.string].compactMap { $0 }
        case .name: return [content["name"]?.string].compactMap { $0 }
        case .topic: return [content["topic"]?.string].compactMap { $0 } + plainTopics(content)
        }
    }

    /// The text/plain representations of a topic in `m.topic`; a representation without a type is text/plain.
    private static func plainTopics(_ content: JSONView) -> [String] {
        guard let texts = content["m.topic"]?["m.text"], texts.isArray else { return [] }
        return texts.elements.prefix(10).filter { $0["mimetype"]?.string ?? "text/plain" == "text/plain" }
            .compactMap { $0["body"]?.string }
    }

    /// The words of a text in their order, each as often as it is there.
    public static func split(_ text: String) -> [[UInt8]] {
        var words: [[UInt8]] = []
        var word: [UInt8] = []
        var pair: Unicode.Scalar?
        var isAlone = false

        func endWord() {
            if !word.isEmpty { words.append(Array(word.prefix(longest))) }
            word = []
        }
        func endPair() {
            if let last = pair, isAlone { words.append(Array(String(last).utf8)) }
            pair = nil
        }
        for scalar in text.lowercased().unicodeScalars {
            if words.count >= most { break }
            if isWithoutSpaces(scalar) {
                endWord()
                if let before = pair {
                    words.append(Array(String(before).utf8) + Array(String(scalar).utf8))
                    isAlone = false
                } else {
                    isAlone = true
                }
                pair = scalar
                continue
            }
            endPair()
            if scalar.isASCII {
                let byte = UInt8(scalar.value)
                if isLetterOrDigit(byte) { word.append(byte) } else { endWord() }
                continue
            }
            // Marks belong to the letter before them.
            let isPart =
                scalar.properties.isAlphabetic || scalar.properties.numericType != nil
                || scalar.properties.generalCategory == .nonspacingMark
            if isPart { word += Array(String(scalar).utf8) } else { endWord() }
        }
        endWord()
        endPair()
        return words
    }

    /// Whether an event may have a word: a quick look at its JSON that never says no where it has. Nothing can be said quickly of
    /// words and texts beyond ASCII, and of escapes for any character.
    public static func mayHold(_ word: [UInt8], in json: [UInt8]) -> Bool {
        guard let first = word.first, let last = word.last, word.allSatisfy({ $0 < 0x80 }) else { return true }
        let (firsts, lasts) = (Block(repeating: first | 0x20), Block(repeating: last | 0x20))
        let backslashes = Block(repeating: UInt8(ascii: "\\"))
        let cases = Block(repeating: 0x20)
        return json.withUnsafeBytes { json in
            var isFound = false
            var index = 0
            while index < json.count {
                // Most of a text is passed over in blocks that have nothing to look at: no word that begins and ends so.
                let end = index + word.count - 1
                if end + Block.count <= json.count {
                    let block = json.loadUnaligned(fromByteOffset: index, as: Block.self)
                    let ends = json.loadUnaligned(fromByteOffset: end, as: Block.self)
                    let others = ((block | cases) ^ firsts) | ((ends | cases) ^ lasts)
                    if block & Block.highBits == 0, !others.holdsZero, !(block ^ backslashes).holdsZero {
                        index += Block.count
                        continue
                    }
                }
                for index in index..<min(index + Block.count, json.count) {
                    let byte = json[index]
                    if byte >= 0x80 { return true }
                    if byte == UInt8(ascii: "\\"), index + 1 < json.count, json[index + 1] == UInt8(ascii: "u") {
                        return true
                    }
                    if !isFound, lowercase(byte) == first, index + word.count <= json.count {
                        isFound = word.indices.allSatisfy { lowercase(json[index + $0]) == word[$0] }
                    }
                }
                index += Block.count
            }
            return isFound
        }
    }

    /// Eight bytes in a register: the compiler makes loops over bytes of the library's SIMD types.
    private typealias Block = UInt64

    private static func lowercase(_ byte: UInt8) -> UInt8 {
        switch byte {
        case UInt8(ascii: "A")...UInt8(ascii: "Z"): byte | 0x20
        default: byte
        }
    }

    private static func isLetterOrDigit(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"): true
        default: false
        }
    }

    /// Scripts whose texts have no spaces between words.
    private static func isWithoutSpaces(_ scalar: Unicode.Scalar) -> Bool {
        if scalar.value < 0x0E00 { return false }
        let properties = scalar.properties
        guard properties.isAlphabetic || properties.generalCategory == .nonspacingMark else { return false }
        switch scalar.value {
        case 0x0E00...0x0EFF,  // Thai, Lao
            0x1000...0x109F,  // Burmese
            0x1780...0x17FF,  // Khmer
            0x3040...0x30FF,  // Hiragana, Katakana
            0x3400...0x4DBF, 0x4E00...0x9FFF, 0xF900...0xFAFF, 0x20000...0x3FFFF:  // Han
            return true
        default: return false
        }
    }

    /// The different words of an event; empty if it isn't found by any.
    public static func words(type: String, content: JSONView) -> Set<[UInt8]> {
        Set(texts(type: type, content: content).flatMap { split($0) }.prefix(most))
    }
}

extension UInt64 {
    fileprivate static let count = 8
    fileprivate static let highBits = UInt64(repeating: 0x80)

    /// Eight times a byte.
    fileprivate init(repeating byte: UInt8) { self = UInt64(byte) &* 0x0101_0101_0101_0101 }

    /// Whether one of the bytes is zero.
    fileprivate var holdsZero: Bool { (self &- UInt64(repeating: 1)) & ~self & Self.highBits != 0 }
}
