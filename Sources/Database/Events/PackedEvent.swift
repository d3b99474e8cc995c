import MatrixCore

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// The bytes of an event as a row holds them: about half of its JSON, from which that comes back byte for byte.
///
/// Hashes, signatures and ciphertexts are kept as what their Base64 stands for, numbers in binary, and what events have in common
/// as one byte or two (``PackedEventFragments``). Canonical JSON is UTF-8 without control characters, so each byte that neither
/// can be is free to say what follows:
///
/// | byte | what follows | stands for |
/// |---|---|---|
/// | 00–1E | | a frequent fragment |
/// | 1F | its number | another fragment |
/// | C0, C1 | a count and as many bytes | unpadded Base64, standard and URL-safe |
/// | F5, F6, F7 | 32, 32, 64 bytes | Base64: standard, URL-safe, standard |
/// | F8 | a number | its decimal digits |
/// | F9 | a distance and a length | what came that far before |
/// | F5–FF, others | | nothing yet |
///
/// Counts and numbers are ``Varint``s. Before all that stands ``mark`` and the length of the JSON. A row that begins with `{` holds
/// the JSON itself: rows from before, and what packing makes no smaller.
enum PackedEvent {
    /// The first byte of packed bytes. Another format needs another one; fragments are only ever added.
    static let mark: UInt8 = 0x01

    static let fragment: UInt8 = 0x1F
    static let standard: UInt8 = 0xC0
    static let urlSafe: UInt8 = 0xC1
    static let standard32: UInt8 = 0xF5
    static let urlSafe32: UInt8 = 0xF6
    static let standard64: UInt8 = 0xF7
    static let number: UInt8 = 0xF8
    static let copy: UInt8 = 0xF9

    /// No event is longer, by far: what claims to be is damaged.
    private static let mostBytes = 1 << 20

    /// The bytes to store for a JSON text. What doesn't come back as it was, or gets no smaller, is stored as it is.
    static func pack(_ json: [UInt8]) -> [UInt8] {
        guard json.first == 0x7B, json.count < mostBytes else { return json }
        let attempt = json.withUnsafeBufferPointer { json in
            var packer = EventPacker(json)
            return packer.pack()
        }
        guard let packed = attempt, packed.count < json.count, comesBack(packed, as: json) else { return json }
        return packed
    }

    private static func comesBack(_ packed: [UInt8], as json: [UInt8]) -> Bool {
        guard let back = try? unpack(packed), back.count == json.count else { return false }
        return memcmp(back, json, json.count) == 0
    }

    /// The JSON that was packed.
    static func unpack(_ bytes: [UInt8]) throws(DatabaseError) -> [UInt8] {
        guard bytes.first == mark else { return bytes }
        var index = 1
        guard let length = Varint.read(bytes, &index), length < mostBytes else { throw damaged }
        var isWhole = false
        let json = [UInt8](unsafeUninitializedCapacity: Int(length)) { output, count in
            count = Int(length)
            isWhole = bytes.withUnsafeBufferPointer { input in
                var unpacker = EventUnpacker(input, from: index, to: output)
                return unpacker.unpack()
            }
            // Nothing of what was not written is handed out.
            if !isWhole { count = 0 }
        }
        guard isWhole else { throw damaged }
        return json
    }

    private static var damaged: DatabaseError { .corrupt("the packed bytes of an event are unreadable") }

    /// Whether a byte stands for itself.
    @inline(__always) static func isText(_ byte: UInt8) -> Bool {
        byte > fragment && byte < standard || byte > urlSafe && byte < standard32
    }
}

private struct EventPacker {
    let json: UnsafeBufferPointer<UInt8>
    let fragments = PackedEventFragments.table
    let values = Base64.values
    var index = 0
    var output: [UInt8]
    /// Names of servers and users that have come, and may come again: where they begin, and how long they are.
    var names: [(start: Int, count: Int)] = []

    private static let mostNames = 6

    init(_ json: UnsafeBufferPointer<UInt8>) {
        self.json = json
        output = []
        output.reserveCapacity(json.count)
        output.append(PackedEvent.mark)
        Varint.append(UInt64(json.count), to: &output)
        names.reserveCapacity(Self.mostNames)
    }

    /// - Returns: nil if the text has bytes that canonical JSON can't have.
    mutating func pack() -> [UInt8]? {
        var before: UInt8 = 0
        while index < json.count {
            let byte = json[index]
            let isPacked =
                switch byte {
                // " , [ ] { }
                case 0x22, 0x2C, 0x5B, 0x5D, 0x7B, 0x7D: packFragment()
                // What stands behind a full stop is the end of a type.
                case 0x61...0x7A where before == 0x2E: packFragment()
                default: Self.begins(before) && (packName(behind: before) || packNumber() || packBase64())
                }
            if !isPacked {
                guard PackedEvent.isText(byte) else { return nil }
                output.append(byte)
                index += 1
            }
            before = json[index - 1]
        }
        return output
    }

    /// Whether a byte stands before a name, a number or Base64 as a rule.
    private static func begins(_ byte: UInt8) -> Bool {
        switch byte {
        // " $ ! @ : / , [
        case 0x22, 0x24, 0x21, 0x40, 0x3A, 0x2F, 0x2C, 0x5B: true
        default: false
        }
    }

    private mutating func packFragment() -> Bool {
        guard let (number, count) = fragments.longest(in: json, at: index) else { return false }
        if number < PackedEvent.fragment {
            output.append(UInt8(number))
        } else {
            output.append(PackedEvent.fragment)
            output.append(UInt8(number - Int(PackedEvent.fragment)))
        }
        index += count
        return true
    }

    /// A server's name or a user's, up to the end of its string: the first time it is remembered.
    private mutating func packName(behind mark: UInt8) -> Bool {
        for name in names where matches(name) {
            output.append(PackedEvent.copy)
            Varint.append(UInt64(index - name.start), to: &output)
            Varint.append(UInt64(name.count), to: &output)
            index += name.count
            return true
        }
        guard mark == 0x40 || mark == 0x3A, names.count < Self.mostNames else { return false }
        var end = index
        while end < json.count, end - index < 255, json[end] != 0x22, json[end] != 0x5C { end += 1 }
        if end - index > 4, end < json.count, json[end] == 0x22 { names.append((index, end - index)) }
        return false
    }

    private func matches(_ name: (start: Int, count: Int)) -> Bool {
        let end = index + name.count
        guard name.start + name.count <= index, end < json.count, json[end] == 0x22 else { return false }
        return memcmp(json.baseAddress! + name.start, json.baseAddress! + index, name.count) == 0
    }

    private mutating func packBase64() -> Bool {
        var end = index
        var hasStandard = false
        var hasURLSafe = false
        while end < json.count {
            let value = values[json[end]]
            if value >= 62 {
                // + and / are of one alphabet, - and _ of the other.
                if value == Base64.Values.none { break }
                let isStandard = json[end] == 0x2B || json[end] == 0x2F
                if isStandard ? hasURLSafe : hasStandard { break }
                if isStandard { hasStandard = true } else { hasURLSafe = true }
            }
            end += 1
        }
        var count = end - index
        guard count >= 16 else { return false }
        if count % 4 == 1 { count -= 1 }
        // Bits behind the last byte don't come back: where there are any, the last group stays text.
        let last = values[json[index + count - 1]]
        if (count % 4 == 2 && last & 15 != 0) || (count % 4 == 3 && last & 3 != 0) { count -= count % 4 }
        let bytes = count * 3 / 4
        switch (bytes, hasURLSafe, hasStandard) {
        case (32, false, true): output.append(PackedEvent.standard32)
        case (32, _, false): output.append(PackedEvent.urlSafe32)
        case (64, false, _): output.append(PackedEvent.standard64)
        default:
            output.append(hasURLSafe ? PackedEvent.urlSafe : PackedEvent.standard)
            Varint.append(UInt64(bytes), to: &output)
        }
        Base64.append(UnsafeBufferPointer(rebasing: json[index..<index + count]), to: &output)
        index += count
        return true
    }

    private mutating func packNumber() -> Bool {
        guard case 0x31...0x39 = json[index] else { return false }
        var end = index
        var value: UInt64 = 0
        while end < json.count, end - index < 18, case 0x30...0x39 = json[end] {
            value = value * 10 + UInt64(json[end] - 0x30)
            end += 1
        }
        // Of up to four digits, the bytes would be as many; digits before letters are Base64 as a rule.
        guard end - index >= 5, end == json.count || values[json[end]] == Base64.Values.none else { return false }
        output.append(PackedEvent.number)
        Varint.append(value, to: &output)
        index = end
        return true
    }
}

/// The bytes of an event's ID as a row holds them: of one that is a hash the hash, with a byte before it that tells the alphabet
/// it is written in, and otherwise its text.
enum PackedEventID {
    private static let urlSafe: UInt8 = 0x01
    private static let standard: UInt8 = 0x02

    static func pack(_ eventID: EventID) -> [UInt8] {
        let text = eventID.string
        if text.utf8.count == 44, let hash = Base64.decode(String(text.dropFirst())) {
            for (mark, alphabet) in [(urlSafe, Base64.Alphabet.urlSafe), (standard, .standard)]
            where text == "$" + Base64.encode(hash, alphabet: alphabet) { return [mark] + hash }
        }
        return Array(text.utf8)
    }

    static func unpack(_ bytes: [UInt8]) -> EventID {
        switch bytes.first {
        case urlSafe: EventID(unchecked: "$" + Base64.encode(bytes.dropFirst(), alphabet: .urlSafe))
        case standard: EventID(unchecked: "$" + Base64.encode(bytes.dropFirst(), alphabet: .standard))
        default: EventID(unchecked: String(decoding: bytes, as: UTF8.self))
        }
    }
}

/// Each function returns whether the input was whole, and what it stands for fitted.
private struct EventUnpacker {
    let input: UnsafeBufferPointer<UInt8>
    var index: Int
    let output: UnsafeMutableBufferPointer<UInt8>
    let fragments = PackedEventFragments.table
    var written = 0

    init(_ input: UnsafeBufferPointer<UInt8>, from index: Int, to output: UnsafeMutableBufferPointer<UInt8>) {
        self.input = input
        self.index = index
        self.output = output
    }

    mutating func unpack() -> Bool {
        while index < input.count {
            let byte = input[index]
            index += 1
            if PackedEvent.isText(byte) {
                guard written < output.count else { return false }
                output[written] = byte
                written += 1
                continue
            }
            let isWhole =
                switch byte {
                case 0..<PackedEvent.fragment: append(fragment: Int(byte))
                case PackedEvent.fragment: unpackFragment()
                case PackedEvent.standard: unpackBase64(.standard, varint())
                case PackedEvent.urlSafe: unpackBase64(.urlSafe, varint())
                case PackedEvent.standard32: unpackBase64(.standard, 32)
                case PackedEvent.urlSafe32: unpackBase64(.urlSafe, 32)
                case PackedEvent.standard64: unpackBase64(.standard, 64)
                case PackedEvent.number: unpackNumber()
                case PackedEvent.copy: unpackCopy()
                default: false
                }
            guard isWhole else { return false }
        }
        return written == output.count
    }

    private mutating func varint() -> Int? { Varint.read(input, &index).flatMap { Int(exactly: $0) } }

    private mutating func unpackFragment() -> Bool {
        guard index < input.count else { return false }
        index += 1
        return append(fragment: Int(input[index - 1]) + Int(PackedEvent.fragment))
    }

    private mutating func append(fragment number: Int) -> Bool {
        guard number < fragments.count else { return false }
        return append(fragments.bytes(of: number))
    }

    /// Adds bytes that lie elsewhere, or before what is added.
    private mutating func append(_ bytes: UnsafeBufferPointer<UInt8>) -> Bool {
        guard bytes.count <= output.count - written else { return false }
        if let start = bytes.baseAddress { (output.baseAddress! + written).update(from: start, count: bytes.count) }
        written += bytes.count
        return true
    }

    private mutating func unpackBase64(_ alphabet: Base64.Alphabet, _ count: Int?) -> Bool {
        guard let count, count <= input.count - index, Base64.characters(of: count) <= output.count - written else {
            return false
        }
        written += Base64.write(
            UnsafeBufferPointer(rebasing: input[index..<index + count]), alphabet: alphabet,
            to: UnsafeMutableBufferPointer(rebasing: output[written...]))
        index += count
        return true
    }

    private mutating func unpackNumber() -> Bool {
        guard var value = varint() else { return false }
        var digits = 1
        var bound = value / 10
        while bound > 0 {
            digits += 1
            bound /= 10
        }
        guard digits <= output.count - written else { return false }
        for place in (0..<digits).reversed() {
            output[written + place] = 0x30 + UInt8(value % 10)
            value /= 10
        }
        written += digits
        return true
    }

    private mutating func unpackCopy() -> Bool {
        guard let distance = varint(), let count = varint(), distance <= written, count <= distance else {
            return false
        }
        let start = written - distance
        return append(UnsafeBufferPointer(rebasing: output[start..<start + count]))
    }
}
