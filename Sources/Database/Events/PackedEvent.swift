import MatrixCore

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
        var packer = EventPacker(json)
        guard let packed = packer.pack(), packed.count < json.count, (try? unpack(packed)) == json else { return json }
        return packed
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
                var unpacker = EventUnpacker(input: input, index: index, output: output)
                return unpacker.unpack()
            }
            // Nothing of what was not written is handed out.
            if !isWhole { count = 0 }
        }
        guard isWhole else { throw damaged }
        return json
    }

    private static var damaged: DatabaseError { .corrupt("the packed bytes of an event are unreadable") }

    /// What each byte of packed bytes is.
    enum Meaning: UInt8 {
        case text, frequent, fragment, base64, number, copy, nothing
    }

    static let meanings: [Meaning] = (0...255).map { (byte: Int) -> Meaning in
        switch UInt8(byte) {
        case 0x00..<fragment: .frequent
        case fragment: .fragment
        case standard, urlSafe, standard32, urlSafe32, standard64: .base64
        case number: .number
        case copy: .copy
        case 0xF5...0xFF: .nothing
        default: .text
        }
    }
}

private struct EventPacker {
    /// The value of each character of either alphabet of Base64, and what all others have.
    private static let values = (0...255).map { Base64.value(of: UInt8($0)).map(UInt8.init) ?? other }
    private static let other: UInt8 = 0xFF

    let json: [UInt8]
    var index = 0
    var output: [UInt8] = []
    /// Names of servers and users that have come, and may come again: where they begin, and how long they are.
    var names: [(start: Int, count: Int)] = []

    init(_ json: [UInt8]) {
        self.json = json
        output.reserveCapacity(json.count)
        output.append(PackedEvent.mark)
        Varint.append(UInt64(json.count), to: &output)
    }

    /// - Returns: nil if the text has bytes that canonical JSON can't have.
    mutating func pack() -> [UInt8]? {
        while index < json.count {
            let byte = json[index]
            switch byte {
            // " , [ ] { }
            case 0x22, 0x2C, 0x5B, 0x5D, 0x7B, 0x7D:
                if packFragment() { continue }
            // What stands behind a full stop is the end of a type.
            case 0x61...0x7A where index > 0 && json[index - 1] == 0x2E:
                if packFragment() { continue }
            default: break
            }
            if index > 0, Self.begins(json[index - 1]), packName() || packBase64() || packNumber() { continue }
            guard PackedEvent.meanings[Int(byte)] == .text else { return nil }
            output.append(byte)
            index += 1
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
        guard let number = PackedEventFragments.longest(in: json, at: index) else { return false }
        if number < PackedEvent.fragment {
            output.append(UInt8(number))
        } else {
            output += [PackedEvent.fragment, UInt8(number - Int(PackedEvent.fragment))]
        }
        index += PackedEventFragments.all[number].count
        return true
    }

    /// A server's name or a user's, up to the end of its string: the first time it is remembered.
    private mutating func packName() -> Bool {
        let mark = json[index - 1]
        for name in names where name.start + name.count <= index && matches(name) {
            output.append(PackedEvent.copy)
            Varint.append(UInt64(index - name.start), to: &output)
            Varint.append(UInt64(name.count), to: &output)
            index += name.count
            return true
        }
        guard mark == 0x40 || mark == 0x3A, names.count < 6 else { return false }
        var end = index
        while end < json.count, end - index < 255, json[end] != 0x22, json[end] != 0x5C { end += 1 }
        if end - index > 4, end < json.count, json[end] == 0x22 { names.append((index, end - index)) }
        return false
    }

    private func matches(_ name: (start: Int, count: Int)) -> Bool {
        guard index + name.count < json.count, json[index + name.count] == 0x22 else { return false }
        for offset in 0..<name.count where json[name.start + offset] != json[index + offset] { return false }
        return true
    }

    private mutating func packBase64() -> Bool {
        var end = index
        var hasStandard = false
        var hasURLSafe = false
        scan: while end < json.count, Self.values[Int(json[end])] != Self.other {
            switch json[end] {
            case 0x2B, 0x2F:
                if hasURLSafe { break scan }
                hasStandard = true
            case 0x2D, 0x5F:
                if hasStandard { break scan }
                hasURLSafe = true
            default: break
            }
            end += 1
        }
        var count = end - index
        if count % 4 == 1 { count -= 1 }
        guard count >= 16 else { return false }
        // Bits behind the last byte don't come back: where there are any, the last group stays text.
        let last = Self.values[Int(json[index + count - 1])]
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
        var buffer: UInt32 = 0
        var bits: UInt32 = 0
        for position in index..<index + count {
            buffer = buffer << 6 | UInt32(Self.values[Int(json[position])])
            bits += 6
            if bits >= 8 {
                bits -= 8
                output.append(UInt8(truncatingIfNeeded: buffer >> bits))
            }
        }
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
        // Of up to four digits, the bytes would be as many.
        guard end - index >= 5 else { return false }
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
    var written = 0

    mutating func unpack() -> Bool {
        while index < input.count {
            let byte = input[index]
            switch PackedEvent.meanings[Int(byte)] {
            case .text:
                guard written < output.count else { return false }
                output[written] = byte
                written += 1
                index += 1
            case .frequent:
                index += 1
                guard append(fragment: Int(byte)) else { return false }
            case .fragment:
                guard index + 1 < input.count else { return false }
                let number = Int(input[index + 1]) + Int(PackedEvent.fragment)
                index += 2
                guard append(fragment: number) else { return false }
            case .base64:
                index += 1
                guard unpackBase64(byte) else { return false }
            case .number:
                index += 1
                guard unpackNumber() else { return false }
            case .copy:
                index += 1
                guard unpackCopy() else { return false }
            case .nothing: return false
            }
        }
        return written == output.count
    }

    private mutating func varint() -> Int? {
        var value = 0
        var shift = 0
        while index < input.count, shift < 63 {
            let byte = input[index]
            index += 1
            value |= Int(byte & 0x7F) << shift
            if byte < 0x80 { return value }
            shift += 7
        }
        return nil
    }

    private mutating func append(fragment number: Int) -> Bool {
        guard number < PackedEventFragments.all.count else { return false }
        let fragment = PackedEventFragments.all[number]
        guard fragment.count <= output.count - written else { return false }
        for offset in 0..<fragment.count { output[written + offset] = fragment[offset] }
        written += fragment.count
        return true
    }

    private mutating func unpackBase64(_ kind: UInt8) -> Bool {
        let count: Int
        switch kind {
        case PackedEvent.standard32, PackedEvent.urlSafe32: count = 32
        case PackedEvent.standard64: count = 64
        default:
            guard let given = varint() else { return false }
            count = given
        }
        guard count <= input.count - index, Base64.characters(of: count) <= output.count - written else { return false }
        let isURLSafe = kind == PackedEvent.urlSafe || kind == PackedEvent.urlSafe32
        written += Base64.write(
            UnsafeBufferPointer(rebasing: input[index..<index + count]), alphabet: isURLSafe ? .urlSafe : .standard,
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
        guard let distance = varint(), let count = varint(), distance <= written, count <= distance,
            count <= output.count - written
        else { return false }
        for offset in 0..<count { output[written + offset] = output[written - distance + offset] }
        written += count
        return true
    }
}
