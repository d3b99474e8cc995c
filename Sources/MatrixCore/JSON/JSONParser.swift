/// Writes the tape of a text.
///
/// One pass over the bytes without recursion. All pointers live only inside ``parse(_:limits:)``.
struct JSONParser {
    private struct Frame {
        var tapeIndex: Int
        var count: Int
        var previousKeyStart: Int
        var previousKeyLength: Int
        var isObject: Bool
        /// Keys so far ascend strictly and have no escapes.
        var isSorted: Bool
    }

    private let base: UnsafePointer<UInt8>
    private let end: Int
    private let limits: JSONLimits
    private var tape: UnsafeMutablePointer<UInt64>
    private var capacity: Int
    private var used = 0

    /// The tape of `bytes`, which must hold exactly one value with optional white space around it.
    static func parse(_ bytes: [UInt8], limits: JSONLimits) throws(JSONError) -> [UInt64] {
        guard bytes.count <= limits.maxBytes else { throw JSONError(.tooLong, at: limits.maxBytes) }
        let result: Result<[UInt64], JSONError> = bytes.withUnsafeBufferPointer { buffer in
            guard let base = buffer.baseAddress, buffer.count > 0 else {
                return .failure(JSONError(.unexpectedEnd, at: 0))
            }
            // Most texts hold a value per ten bytes; the tape grows when one is denser.
            var parser = JSONParser(base: base, end: buffer.count, limits: limits, capacity: buffer.count / 6 + 16)
            defer { parser.tape.deallocate() }
            do throws(JSONError) {
                try parser.run()
            } catch {
                return .failure(error)
            }
            return .success([UInt64](UnsafeBufferPointer(start: parser.tape, count: parser.used)))
        }
        return try result.get()
    }

    private init(base: UnsafePointer<UInt8>, end: Int, limits: JSONLimits, capacity: Int) {
        self.base = base
        self.end = end
        self.limits = limits
        self.capacity = capacity
        tape = UnsafeMutablePointer<UInt64>.allocate(capacity: capacity)
    }

    @inline(__always) private mutating func emit(_ word: UInt64) {
        if used == capacity { grow() }
        tape[used] = word
        used &+= 1
    }

    @inline(never) private mutating func grow() {
        let larger = UnsafeMutablePointer<UInt64>.allocate(capacity: capacity * 2)
        larger.update(from: tape, count: used)
        tape.deallocate()
        tape = larger
        capacity *= 2
    }

    @inline(__always) private func skipWhiteSpace(_ index: inout Int) {
        while index < end {
            switch base[index] {
            case 0x20, 0x0A, 0x0D, 0x09: index &+= 1
            default: return
            }
        }
    }

    private mutating func run() throws(JSONError) {
        var frames: [Frame] = []
        frames.reserveCapacity(min(limits.maxDepth, 16))
        var frame = Frame(
            tapeIndex: 0, count: 0, previousKeyStart: 0, previousKeyLength: -1, isObject: false, isSorted: true)
        var depth = 0
        var index = 0

        parsing: while true {
            // A value begins here; inside an object its key comes first.
            skipWhiteSpace(&index)
            if depth > 0, frame.isObject { try parseKey(&index, &frame) }
            guard index < end else { throw JSONError(.unexpectedEnd, at: end) }
            let byte = base[index]
            switch byte {
            case 0x22:
                let start = index
                let escaped = try scanString(&index)
                emit(JSONTapeWord(.string, flag: escaped, start: start, extent: index &- start).bits)
            case 0x7B, 0x5B:
                guard depth < limits.maxDepth else { throw JSONError(.tooDeep, at: index) }
                if depth > 0 { frames.append(frame) }
                depth &+= 1
                let isObject = byte == 0x7B
                frame = Frame(
                    tapeIndex: used, count: 0, previousKeyStart: 0, previousKeyLength: -1, isObject: isObject,
                    isSorted: true)
                emit(JSONTapeWord(isObject ? .object : .array, flag: true, start: index, extent: 0).bits)
                emit(0)
                index &+= 1
                skipWhiteSpace(&index)
                guard index < end else { throw JSONError(.unexpectedEnd, at: end) }
                if base[index] != (isObject ? 0x7D : 0x5D) { continue parsing }
                try close(&index, frame)
                depth &-= 1
                if depth > 0, let parent = frames.popLast() { frame = parent }
            default:
                try parseScalar(&index)
            }

            // A value ended here: close what closes, then either go on behind a comma or be done.
            while true {
                skipWhiteSpace(&index)
                if depth == 0 {
                    guard index == end else { throw JSONError(.trailingBytes, at: index) }
                    return
                }
                frame.count &+= 1
                guard index < end else { throw JSONError(.unexpectedEnd, at: end) }
                switch base[index] {
                case 0x2C:
                    index &+= 1
                    continue parsing
                case 0x7D where frame.isObject, 0x5D where !frame.isObject:
                    try close(&index, frame)
                    depth &-= 1
                    if depth > 0, let parent = frames.popLast() { frame = parent }
                default:
                    throw JSONError(.unexpectedByte, at: index)
                }
            }
        }
    }

    /// Completes the words of a container whose closing bracket stands at `index`.
    private mutating func close(_ index: inout Int, _ frame: Frame) throws(JSONError) {
        if frame.isObject, !frame.isSorted, limits.duplicateKeys == .reject {
            if let duplicate = JSONDuplicateKeys.first(
                in: UnsafeBufferPointer(start: tape, count: used), members: frame.count, from: frame.tapeIndex + 2,
                base: base)
            {
                throw JSONError(.duplicateKey, at: duplicate)
            }
        }
        index &+= 1
        let opening = JSONTapeWord(bits: tape[frame.tapeIndex])
        tape[frame.tapeIndex] =
            JSONTapeWord(opening.kind, flag: frame.isSorted, start: opening.start, extent: used).bits
        tape[frame.tapeIndex &+ 1] = JSONTapeWord.containerEnd(index, count: frame.count)
    }

    @inline(__always) private mutating func parseKey(_ index: inout Int, _ frame: inout Frame) throws(JSONError) {
        guard index < end else { throw JSONError(.unexpectedEnd, at: end) }
        guard base[index] == 0x22 else { throw JSONError(.unexpectedByte, at: index) }
        let start = index
        let escaped = try scanString(&index)
        emit(JSONTapeWord(.string, flag: escaped, start: start, extent: index &- start).bits)
        let keyStart = start &+ 1
        let keyLength = index &- start &- 2
        if frame.isSorted {
            if escaped {
                frame.isSorted = false
            } else if frame.previousKeyLength >= 0 {
                frame.isSorted = Bytes.isLess(
                    base + frame.previousKeyStart, frame.previousKeyLength, base + keyStart, keyLength)
            }
            frame.previousKeyStart = keyStart
            frame.previousKeyLength = keyLength
        }
        skipWhiteSpace(&index)
        guard index < end else { throw JSONError(.unexpectedEnd, at: end) }
        guard base[index] == 0x3A else { throw JSONError(.unexpectedByte, at: index) }
        index &+= 1
        skipWhiteSpace(&index)
    }

    private mutating func parseScalar(_ index: inout Int) throws(JSONError) {
        let start = index
        switch base[index] {
        case UInt8(ascii: "t"):
            try expect("true", &index)
            emit(JSONTapeWord(.true, flag: false, start: start, extent: 4).bits)
        case UInt8(ascii: "f"):
            try expect("false", &index)
            emit(JSONTapeWord(.false, flag: false, start: start, extent: 5).bits)
        case UInt8(ascii: "n"):
            try expect("null", &index)
            emit(JSONTapeWord(.null, flag: false, start: start, extent: 4).bits)
        case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"):
            let kind = try scanNumber(&index)
            emit(JSONTapeWord(kind, flag: false, start: start, extent: index &- start).bits)
        default:
            throw JSONError(.unexpectedByte, at: index)
        }
    }

    private func expect(_ word: StaticString, _ index: inout Int) throws(JSONError) {
        for offset in 0..<word.utf8CodeUnitCount {
            guard index < end else { throw JSONError(.unexpectedEnd, at: end) }
            guard base[index] == word.utf8Start[offset] else { throw JSONError(.unexpectedByte, at: index) }
            index &+= 1
        }
    }

    @inline(__always) private func scanDigits(_ index: inout Int) -> Int {
        let start = index
        while index < end, base[index] &- 0x30 < 10 { index &+= 1 }
        return index &- start
    }

    /// RFC 8259 §6: no leading zeros, no plus sign, digits on both sides of the point.
    private func scanNumber(_ index: inout Int) throws(JSONError) -> JSONKind {
        let start = index
        let isNegative = base[index] == 0x2D
        if isNegative { index &+= 1 }
        let digitsStart = index
        let digits = scanDigits(&index)
        guard digits > 0 else { throw JSONError(index < end ? .invalidNumber : .unexpectedEnd, at: index) }
        guard digits == 1 || base[digitsStart] != 0x30 else { throw JSONError(.invalidNumber, at: start) }
        var kind = JSONKind.integer
        if index < end, base[index] == 0x2E {
            index &+= 1
            guard scanDigits(&index) > 0 else { throw JSONError(.invalidNumber, at: start) }
            kind = .double
        }
        if index < end, base[index] | 0x20 == 0x65 {
            index &+= 1
            if index < end, base[index] == 0x2B || base[index] == 0x2D { index &+= 1 }
            guard scanDigits(&index) > 0 else { throw JSONError(.invalidNumber, at: start) }
            kind = .double
        }
        if limits.numbers == .canonicalOnly {
            let isNegativeZero = isNegative && base[digitsStart] == 0x30
            guard kind == .integer, !isNegativeZero, digits <= 16,
                JSONNumber.magnitude(base + digitsStart, digits) <= JSONNumber.maxMagnitude
            else { throw JSONError(.numberNotCanonical, at: start) }
        }
        return kind
    }

    /// Moves from an opening quote to behind the closing one; true if there are escape sequences.
    @inline(__always) private func scanString(_ index: inout Int) throws(JSONError) -> Bool {
        index &+= 1
        var escaped = false
        while true {
            // Eight bytes at a time as long as they are plain ASCII.
            while index &+ 8 <= end {
                let special = Bytes.specialMask(
                    UInt64(littleEndian: UnsafeRawPointer(base + index).loadUnaligned(as: UInt64.self)))
                if special == 0 {
                    index &+= 8
                } else {
                    index &+= special.trailingZeroBitCount &>> 3
                    break
                }
            }
            guard index < end else { throw JSONError(.unexpectedEnd, at: end) }
            let byte = base[index]
            if byte == 0x22 {
                index &+= 1
                return escaped
            } else if byte >= 0x80 {
                let length = Bytes.utf8SequenceLength(base + index, end &- index)
                guard length > 0 else { throw JSONError(.invalidUTF8, at: index) }
                index &+= length
            } else if byte == 0x5C {
                escaped = true
                try scanEscape(&index)
            } else if byte < 0x20 {
                throw JSONError(.controlCharacter, at: index)
            } else {
                index &+= 1
            }
        }
    }

    private func scanEscape(_ index: inout Int) throws(JSONError) {
        let start = index
        guard index &+ 1 < end else { throw JSONError(.unexpectedEnd, at: end) }
        switch base[index &+ 1] {
        case 0x22, 0x5C, 0x2F, 0x62, 0x66, 0x6E, 0x72, 0x74:
            index &+= 2
        case 0x75:
            let unit = try hexUnit(index)
            index &+= 6
            if unit & 0xFC00 == 0xDC00 { throw JSONError(.loneSurrogate, at: start) }
            if unit & 0xFC00 == 0xD800 {
                guard index &+ 1 < end, base[index] == 0x5C, base[index &+ 1] == 0x75 else {
                    throw JSONError(.loneSurrogate, at: start)
                }
                guard try hexUnit(index) & 0xFC00 == 0xDC00 else { throw JSONError(.loneSurrogate, at: start) }
                index &+= 6
            }
        default:
            throw JSONError(.invalidEscape, at: start)
        }
    }

    /// The code unit of the `\uXXXX` that starts at `index`.
    private func hexUnit(_ index: Int) throws(JSONError) -> UInt32 {
        guard index &+ 6 <= end else { throw JSONError(.unexpectedEnd, at: end) }
        guard let unit = JSONEscapes.hexUnit(base + index + 2) else { throw JSONError(.invalidEscape, at: index) }
        return unit
    }
}
