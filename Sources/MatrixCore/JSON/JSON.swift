/// A JSON value that is built or taken apart in code.
///
/// For reading what others sent use ``JSONDocument``; this is for making values. Strings and keys are compared by
/// their bytes.
public enum JSON: Sendable {
    case null
    case bool(Bool)
    case integer(Int64)
    case double(Double)
    case string(String)
    case array([JSON])
    case object(JSONObject)
    /// Bytes that are already one JSON value: stored events and answers go out without being decoded.
    case raw([UInt8])

    /// The member called `key`, nil if there is none or this is no object. Setting on anything but an object makes it one.
    public subscript(_ key: String) -> JSON? {
        get {
            guard case .object(let object) = self else { return nil }
            return object[key]
        }
        set {
            guard case .object(var object) = self else {
                self = .object(JSONObject(newValue.map { [(key, $0)] } ?? []))
                return
            }
            self = .null
            object[key] = newValue
            self = .object(object)
        }
    }

    public var stringValue: String? {
        guard case .string(let value) = self else { return nil }
        return value
    }

    /// An integer within ±(2^53−1).
    public var integerValue: Int64? {
        guard case .integer(let value) = self, value.magnitude <= JSONNumber.maxMagnitude else { return nil }
        return value
    }

    public var doubleValue: Double? {
        switch self {
        case .double(let value): value
        case .integer(let value): Double(value)
        default: nil
        }
    }

    public var boolValue: Bool? {
        guard case .bool(let value) = self else { return nil }
        return value
    }

    public var arrayValue: [JSON]? {
        guard case .array(let value) = self else { return nil }
        return value
    }

    public var objectValue: JSONObject? {
        guard case .object(let value) = self else { return nil }
        return value
    }

    public var isNull: Bool {
        guard case .null = self else { return false }
        return true
    }

    /// The value as JSON, members in their order.
    public func encoded() -> [UInt8] {
        var writer = JSONWriter()
        writer.value(self)
        return writer.bytes
    }

    /// The canonical encoding (Appendices, Canonical JSON).
    ///
    /// - Throws: ``CanonicalJSONError`` for numbers that it has no place for, or if ``raw(_:)`` is not JSON.
    public func canonical() throws(CanonicalJSONError) -> [UInt8] {
        try document().root.canonical()
    }

    /// The value encoded and parsed again; a way to hand a value to a function that reads a ``JSONView``.
    func document() throws(CanonicalJSONError) -> JSONDocument {
        do {
            return try JSONDocument(parsing: encoded(), limits: .own)
        } catch {
            throw .invalidRawJSON(error)
        }
    }
}

extension JSON: Hashable {
    public static func == (a: JSON, b: JSON) -> Bool {
        switch (a, b) {
        case (.null, .null): true
        case (.bool(let x), .bool(let y)): x == y
        case (.integer(let x), .integer(let y)): x == y
        case (.double(let x), .double(let y)): x == y
        case (.string(let x), .string(let y)): x.hasSameBytes(as: y)
        case (.array(let x), .array(let y)): x == y
        case (.object(let x), .object(let y)): x == y
        case (.raw(let x), .raw(let y)): x == y
        default: false
        }
    }

    public func hash(into hasher: inout Hasher) {
        switch self {
        case .null: hasher.combine(0)
        case .bool(let value): hasher.combine(value)
        case .integer(let value): hasher.combine(value)
        case .double(let value): hasher.combine(value)
        case .string(let value): value.hashBytes(into: &hasher)
        case .array(let value): hasher.combine(value)
        case .object(let value): hasher.combine(value)
        case .raw(let value): hasher.combine(value)
        }
    }
}

extension JSON: ExpressibleByNilLiteral, ExpressibleByBooleanLiteral, ExpressibleByIntegerLiteral,
    ExpressibleByFloatLiteral, ExpressibleByStringLiteral, ExpressibleByStringInterpolation,
    ExpressibleByArrayLiteral, ExpressibleByDictionaryLiteral
{
    public init(nilLiteral: ()) { self = .null }
    public init(booleanLiteral value: Bool) { self = .bool(value) }
    public init(integerLiteral value: Int64) { self = .integer(value) }
    public init(floatLiteral value: Double) { self = .double(value) }
    public init(stringLiteral value: String) { self = .string(value) }
    public init(arrayLiteral elements: JSON...) { self = .array(elements) }
    public init(dictionaryLiteral elements: (String, JSON)...) { self = .object(JSONObject(elements)) }
}

extension JSONView {
    /// The value decoded. An integer beyond 64 bits stays as its bytes.
    public var json: JSON {
        switch kind {
        case .null: .null
        case .true: .bool(true)
        case .false: .bool(false)
        case .integer: int64.map { .integer($0) } ?? .raw([UInt8](raw))
        case .double: double.map { .double($0) } ?? .raw([UInt8](raw))
        case .string: .string(string ?? "")
        case .array: .array(elements.map(\.json))
        case .object: .object(JSONObject(members.map { ($0.key, $0.value.json) }))
        }
    }
}
