/// One value bound to a statement's parameter.
public enum SQLValue: Sendable {
    case null
    case integer(Int64)
    case text(String)
    case blob([UInt8])
    /// The commit position number `offset` (0, 1, …) of those that the ``Write`` reserves. It becomes a number when
    /// the write is carried out, so that positions are given in the order of commits.
    case position(Int)

    public static func optional(_ value: Int64?) -> SQLValue { value.map(SQLValue.integer) ?? .null }
    public static func optional(_ value: String?) -> SQLValue { value.map(SQLValue.text) ?? .null }
    public static func optional(_ value: [UInt8]?) -> SQLValue { value.map(SQLValue.blob) ?? .null }
    public static func flag(_ value: Bool) -> SQLValue { .integer(value ? 1 : 0) }
    /// The UTF-8 bytes of a protocol identifier: identifiers are kept as bytes, so that every engine orders and
    /// compares them alike.
    public static func identifier(_ value: String) -> SQLValue { .blob([UInt8](value.utf8)) }
}
