import Synchronization

/// A statement of SQL in the common dialect of both engines, with parameters `$1`, `$2`, ….
///
/// Statements are `static let`s: each gets a number at its creation, by which a connection finds the prepared form
/// without hashing the text.
public struct Statement: Sendable {
    public let sql: String
    let number: Int

    private static let created = Atomic<Int>(0)

    public init(_ sql: String) {
        self.sql = sql
        number = Self.created.wrappingAdd(1, ordering: .relaxed).oldValue
    }
}
