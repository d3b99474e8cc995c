/// Writes JSON straight into bytes; commas take care of themselves.
///
/// The caller keeps begin and end in balance and puts a key before every value of an object; a violation is a bug of
/// the caller that shows in the bytes.
public struct JSONWriter: Sendable {
    public private(set) var bytes: [UInt8]
    private var needsComma = false

    public init(capacity: Int = 256) {
        bytes = []
        bytes.reserveCapacity(capacity)
    }

    /// A place in what has been written.
    public struct Mark: Sendable {
        fileprivate let count: Int
        fileprivate let needsComma: Bool
    }

    /// Here, to go back to if what comes next can't be written to its end.
    public var mark: Mark { Mark(count: bytes.count, needsComma: needsComma) }

    /// Takes back what was written since a mark.
    public mutating func rewind(to mark: Mark) {
        bytes.removeSubrange(mark.count...)
        needsComma = mark.needsComma
    }

    @inline(__always) private mutating func separate() {
        if needsComma { bytes.append(0x2C) }
        needsComma = true
    }

    public mutating func beginObject() {
        separate()
        bytes.append(0x7B)
        needsComma = false
    }

    public mutating func endObject() {
        bytes.append(0x7D)
        needsComma = true
    }

    public mutating func beginArray() {
        separate()
        bytes.append(0x5B)
        needsComma = false
    }

    public mutating func endArray() {
        bytes.append(0x5D)
        needsComma = true
    }

    public mutating func key(_ key: String) {
        separate()
        key.withBytes { JSONEscapes.appendQuoted($0, to: &bytes) }
        bytes.append(0x3A)
        needsComma = false
    }

    /// A key that is known to need no escapes, such as a literal of the protocol.
    public mutating func key(plain key: StaticString) {
        separate()
        bytes.append(0x22)
        bytes.append(contentsOf: UnsafeBufferPointer(start: key.utf8Start, count: key.utf8CodeUnitCount))
        bytes.append(0x22)
        bytes.append(0x3A)
        needsComma = false
    }

    public mutating func string(_ value: String) {
        separate()
        value.withBytes { JSONEscapes.appendQuoted($0, to: &bytes) }
    }

    public mutating func integer(_ value: Int64) {
        separate()
        // Twenty bytes hold the longest: −9223372036854775808.
        withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 20) { digits in
            var position = 20
            var rest = value.magnitude
            repeat {
                position -= 1
                digits[position] = 0x30 + UInt8(truncatingIfNeeded: rest % 10)
                rest /= 10
            } while rest > 0
            if value < 0 {
                position -= 1
                digits[position] = 0x2D
            }
            bytes.append(contentsOf: digits[position..<20])
        }
    }

    public mutating func integer(_ value: Int) { integer(Int64(value)) }

    /// Writes null for infinities and NaN, which JSON has no word for.
    public mutating func double(_ value: Double) {
        separate()
        bytes.append(contentsOf: JSONNumber.text(value).utf8)
    }

    public mutating func bool(_ value: Bool) {
        separate()
        bytes.append(contentsOf: value ? [0x74, 0x72, 0x75, 0x65] : [0x66, 0x61, 0x6C, 0x73, 0x65])
    }

    public mutating func null() {
        separate()
        bytes.append(contentsOf: [0x6E, 0x75, 0x6C, 0x6C])
    }

    /// Bytes that are already one JSON value.
    public mutating func raw(_ value: ArraySlice<UInt8>) {
        separate()
        bytes.append(contentsOf: value)
    }

    public mutating func raw(_ value: [UInt8]) { raw(value[...]) }

    /// Bytes that continue what was written before: one value in several slices begins with ``raw(_:)`` and goes on
    /// with this.
    public mutating func append(_ slice: ArraySlice<UInt8>) {
        bytes.append(contentsOf: slice)
    }

    public mutating func value(_ value: JSON) {
        switch value {
        case .null: null()
        case .bool(let value): bool(value)
        case .integer(let value): integer(value)
        case .double(let value): double(value)
        case .string(let value): string(value)
        case .raw(let bytes): raw(bytes)
        case .array(let elements):
            beginArray()
            for element in elements { self.value(element) }
            endArray()
        case .object(let object):
            beginObject()
            for (name, member) in object {
                key(name)
                self.value(member)
            }
            endObject()
        }
    }
}
