import Synchronization

/// A statement of SQL in the common dialect of both engines, with parameters `$1`, `$2`, ….
///
/// Statements are `static let`s: each gets a number at its creation, by which a connection finds the prepared form
/// without hashing the text.
public struct Statement: Sendable {
    public let sql: String
    let number: Int
    /// Whether executions one after another may be one, which is much cheaper on a networked engine: an INSERT of which none looks at
    /// what another one has written, and that does nothing about a row that is there or changes one that no other one is about; or a
    /// DELETE or an UPDATE of rows that no other one is about, an UPDATE only in writes that take positions: it passes over a row that
    /// another transaction changes at the same time.
    let isIndependent: Bool

    private static let created = Atomic<Int>(0)

    public init(_ sql: String, isIndependent: Bool = false) {
        self.sql = sql
        self.isIndependent = isIndependent
        number = Self.created.wrappingAdd(1, ordering: .relaxed).oldValue
    }
}
