/// A row of a result. It is valid only inside the closure it is given to; what is read from it is a copy.
public protocol Row {
    /// Whether the column holds no value.
    func isNull(_ column: Int) -> Bool
    /// An integer; 0 where there is none.
    func integer(_ column: Int) -> Int64
    /// The bytes of a BLOB or TEXT; empty where there are none.
    func blob(_ column: Int) -> [UInt8]
    /// The text of a TEXT or of a BLOB that holds UTF-8; empty where there is none.
    func text(_ column: Int) -> String
}

extension Row {
    public func optionalInteger(_ column: Int) -> Int64? { isNull(column) ? nil : integer(column) }
    public func optionalText(_ column: Int) -> String? { isNull(column) ? nil : text(column) }
    public func optionalBlob(_ column: Int) -> [UInt8]? { isNull(column) ? nil : blob(column) }
    public func flag(_ column: Int) -> Bool { integer(column) != 0 }
}
