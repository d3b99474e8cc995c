/// Reading and writing the escape sequences of strings.
enum JSONEscapes {
    static func hexUnit(_ digits: UnsafePointer<UInt8>) -> UInt32? {
        var unit: UInt32 = 0
        for index in 0..<4 {
            let digit: UInt8
            switch digits[index] {
            case 0x30...0x39: digit = digits[index] - 0x30
            case 0x41...0x46: digit = digits[index] - 0x41 + 10
            case 0x61...0x66: digit = digits[index] - 0x61 + 10
            default: return nil
            }
            unit = unit << 4 | UInt32(digit)
        }
        return unit
    }

    /// The bytes that the inside of a string stands for. `content` has passed the parser, so every escape is complete.
    static func decode(_ content: UnsafeBufferPointer<UInt8>) -> [UInt8] {
        var result: [UInt8] = []
        guard let base = content.baseAddress else { return result }
        result.reserveCapacity(content.count)
        var index = 0
        while index < content.count {
            let byte = content[index]
            guard byte == 0x5C else {
                result.append(byte)
                index += 1
                continue
            }
            let escape = content[index + 1]
            index += 2
            switch escape {
            case 0x62: result.append(0x08)
            case 0x66: result.append(0x0C)
            case 0x6E: result.append(0x0A)
            case 0x72: result.append(0x0D)
            case 0x74: result.append(0x09)
            case 0x75:
                var scalar = hexUnit(base + index) ?? 0xFFFD
                index += 4
                if scalar & 0xFC00 == 0xD800 {
                    let low = hexUnit(base + index + 2) ?? 0xDC00
                    scalar = 0x10000 + (scalar & 0x3FF) << 10 + low & 0x3FF
                    index += 6
                }
                appendUTF8(scalar, to: &result)
            default: result.append(escape)
            }
        }
        return result
    }

    private static func appendUTF8(_ scalar: UInt32, to result: inout [UInt8]) {
        if let unicode = Unicode.Scalar(scalar) {
            result.append(contentsOf: UTF8.encode(unicode) ?? UTF8.encodedReplacementCharacter)
        }
    }

    /// Appends `text`, which is UTF-8, as a quoted string with no escape that is not needed
    /// (Appendices, Canonical JSON, Grammar).
    static func appendQuoted(_ text: UnsafeBufferPointer<UInt8>, to output: inout [UInt8]) {
        output.append(0x22)
        if let base = text.baseAddress {
            var runStart = 0
            var index = 0
            while index < text.count {
                if index &+ 8 <= text.count {
                    let word = UnsafeRawPointer(base + index).loadUnaligned(as: UInt64.self)
                    let escaped = Bytes.escapedMask(UInt64(littleEndian: word))
                    index &+= escaped == 0 ? 8 : escaped.trailingZeroBitCount &>> 3
                    if escaped == 0 { continue }
                }
                let byte = base[index]
                if byte >= 0x20, byte != 0x22, byte != 0x5C {
                    index &+= 1
                    continue
                }
                output.append(contentsOf: UnsafeBufferPointer(start: base + runStart, count: index - runStart))
                appendEscape(byte, to: &output)
                index &+= 1
                runStart = index
            }
            output.append(contentsOf: UnsafeBufferPointer(start: base + runStart, count: text.count - runStart))
        }
        output.append(0x22)
    }

    private static func appendEscape(_ byte: UInt8, to output: inout [UInt8]) {
        output.append(0x5C)
        switch byte {
        case 0x08: output.append(0x62)
        case 0x09: output.append(0x74)
        case 0x0A: output.append(0x6E)
        case 0x0C: output.append(0x66)
        case 0x0D: output.append(0x72)
        case 0x22, 0x5C: output.append(byte)
        default:
            let hex: StaticString = "0123456789abcdef"
            output.append(contentsOf: [0x75, 0x30, 0x30, 0x30 + byte >> 4])
            output.append(hex.utf8Start[Int(byte & 15)])
        }
    }
}

/// Reading and writing numbers.
enum JSONNumber {
    /// 2^53 − 1, the largest integer that canonical JSON allows.
    static let maxMagnitude: UInt64 = 1 << 53 - 1

    /// The value of at most 19 digits.
    @inline(__always) static func magnitude(_ digits: UnsafePointer<UInt8>, _ count: Int) -> UInt64 {
        var value: UInt64 = 0
        for index in 0..<count { value = value &* 10 &+ UInt64(digits[index] &- 0x30) }
        return value
    }

    /// The value of an integer token if it fits.
    static func int64(_ token: UnsafeBufferPointer<UInt8>) -> Int64? {
        guard let base = token.baseAddress, token.count > 0 else { return nil }
        let isNegative = token[0] == 0x2D
        let digits = token.count - (isNegative ? 1 : 0)
        guard digits > 0, digits <= 19 else { return nil }
        // 19 digits are below 10^19, which fits an unsigned word.
        let value = magnitude(base + (isNegative ? 1 : 0), digits)
        if isNegative {
            return value <= 1 << 63 ? Int64(truncatingIfNeeded: 0 &- value) : nil
        }
        return value < 1 << 63 ? Int64(value) : nil
    }

    static func double(_ token: UnsafeBufferPointer<UInt8>) -> Double? {
        Double(String(decoding: token, as: UTF8.self))
    }

    /// A finite number as JSON: the shortest digits that read back as the same number, with an exponent from 10^16 on and
    /// below 10^−4. The same digits as Python's `repr`, by which rooms of versions 1 to 5 have hashed floats so far.
    static func text(_ value: Double) -> String {
        guard value.isFinite else { return "null" }
        let text = value.description
        guard value.magnitude >= 1e16, !text.utf8.contains(0x65) else { return text }
        // Swift writes out integers up to 2^54.
        var digits = text.hasSuffix(".0") ? String(text.dropLast(2)) : text
        let sign = digits.hasPrefix("-") ? "-" : ""
        digits.removeFirst(sign.utf8.count)
        let exponent = digits.utf8.count - 1
        let head = digits.removeFirst()
        while digits.hasSuffix("0") { digits.removeLast() }
        return "\(sign)\(head)\(digits.isEmpty ? "" : ".")\(digits)e+\(exponent)"
    }
}
