/// Unsigned integers in seven bits a byte, lowest first, as state nodes and packed lists of numbers hold them.
enum Varint {
    static func append(_ value: UInt64, to bytes: inout [UInt8]) {
        var rest = value
        while rest >= 0x80 {
            bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        bytes.append(UInt8(rest))
    }

    /// Reads a number at `index` and moves the index behind it; nil where the bytes end or the number is too large.
    static func read(_ bytes: borrowing [UInt8], _ index: inout Int) -> UInt64? {
        bytes.withUnsafeBufferPointer { read($0, &index) }
    }

    @inline(__always) static func read(_ bytes: UnsafeBufferPointer<UInt8>, _ index: inout Int) -> UInt64? {
        var value: UInt64 = 0
        var shift: UInt64 = 0
        while index < bytes.count, shift < 64 {
            let byte = bytes[index]
            index += 1
            value |= UInt64(byte & 0x7f) << shift
            if byte < 0x80 { return value }
            shift += 7
        }
        return nil
    }
}

/// Lists of row numbers in a column: previous events, auth events, forward extremities.
public enum PackedNumbers {
    public static func pack(_ numbers: [Int64]) -> [UInt8] {
        var bytes: [UInt8] = []
        for number in numbers { Varint.append(UInt64(bitPattern: number), to: &bytes) }
        return bytes
    }

    public static func unpack(_ bytes: [UInt8]) throws(DatabaseError) -> [Int64] {
        var numbers: [Int64] = []
        var index = 0
        while index < bytes.count {
            guard let number = Varint.read(bytes, &index) else {
                throw .corrupt("a packed list of numbers is cut short")
            }
            numbers.append(Int64(bitPattern: number))
        }
        return numbers
    }
}
