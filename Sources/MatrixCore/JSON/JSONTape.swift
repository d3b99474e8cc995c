/// What a value is. Integers are numbers without fraction and exponent, whatever their size.
public enum JSONKind: UInt8, Sendable, Hashable {
    case null = 0
    case `false` = 1
    case `true` = 2
    case integer = 3
    case double = 4
    case string = 5
    case array = 6
    case object = 7
}

/// One word of the tape.
///
/// The tape lists the values of a text in the order in which they begin; the members of an object are its keys and
/// values in turn. A scalar takes one word: kind (3 bits), flag (1 bit), offset of its first byte (30 bits) and length in
/// bytes (30 bits). A container takes two: the first has the index of the word after the whole container in place of
/// the length, the second the offset behind its last byte and the number of its elements or members (32 bits each).
struct JSONTapeWord {
    var bits: UInt64

    static let mask30: UInt64 = 1 << 30 - 1

    @inline(__always) init(bits: UInt64) { self.bits = bits }

    @inline(__always) init(_ kind: JSONKind, flag: Bool, start: Int, extent: Int) {
        bits =
            UInt64(kind.rawValue) | (flag ? 8 : 0) | UInt64(truncatingIfNeeded: start) << 4
            | UInt64(truncatingIfNeeded: extent) << 34
    }

    @inline(__always) var kind: JSONKind {
        switch bits & 7 {
        case 0: .null
        case 1: .false
        case 2: .true
        case 3: .integer
        case 4: .double
        case 5: .string
        case 6: .array
        default: .object
        }
    }

    /// Strings: contains escape sequences. Objects: the keys ascend strictly by their bytes and none is escaped.
    @inline(__always) var flag: Bool { bits & 8 != 0 }
    @inline(__always) var start: Int { Int(truncatingIfNeeded: bits >> 4 & Self.mask30) }
    /// Length in bytes of a scalar, quotes included; index of the following word for a container.
    @inline(__always) var extent: Int { Int(truncatingIfNeeded: bits >> 34) }
    @inline(__always) var isContainer: Bool { bits & 6 == 6 }

    @inline(__always) static func containerEnd(_ end: Int, count: Int) -> UInt64 {
        UInt64(truncatingIfNeeded: end) << 32 | UInt64(truncatingIfNeeded: count)
    }
}
