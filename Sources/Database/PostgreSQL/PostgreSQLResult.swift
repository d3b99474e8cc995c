import CPostgreSQL

/// The rows of one command, as libpq received them. Immutable, so that any thread may read it; nothing is copied until a
/// row is decoded.
final class PostgreSQLResult: @unchecked Sendable {
    let handle: OpaquePointer

    /// Takes over the result.
    init(_ handle: OpaquePointer) { self.handle = handle }

    deinit { PQclear(handle) }

    var count: Int { Int(PQntuples(handle)) }

    func row(_ index: Int) -> PostgreSQLRow { PostgreSQLRow(handle: handle, row: Int32(index)) }

    /// Of the answer to a ``PostgreSQLBatch`` of which rows are wanted: the rows in the order of their sets, each with its set's index.
    var rowsOfSets: [(set: Int, row: PostgreSQLRow)] {
        let place = Int(PQnfields(handle)) - 1
        var rows = (0..<count).map { index in
            let row = row(index)
            return (set: Int(row.integer(place)) - 1, row: row)
        }
        // The server takes the sets one after another, as a rule; it need not. What belongs to one stays in its order.
        let isInOrder = zip(rows, rows.dropFirst()).allSatisfy { $0.set <= $1.set }
        if !isInOrder {
            rows = rows.enumerated().sorted { ($0.element.set, $0.offset) < ($1.element.set, $1.offset) }.map(\.element)
        }
        return rows
    }

    /// The rows of each of so many sets, without the column that tells the set.
    func rows(ofSets count: Int) -> [[[SQLValue]]] {
        var rows = [[[SQLValue]]](repeating: [], count: count)
        for (set, row) in rowsOfSets { rows[set].append(row.values.dropLast()) }
        return rows
    }

    var rows: [[SQLValue]] { (0..<count).map { row($0).values } }
}

/// A row of a result whose columns are in binary form.
struct PostgreSQLRow: Row {
    let handle: OpaquePointer
    let row: Int32

    func isNull(_ column: Int) -> Bool { PQgetisnull(handle, row, Int32(column)) == 1 }

    private func bytes(_ column: Int) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(
            start: PQgetvalue(handle, row, Int32(column)), count: Int(PQgetlength(handle, row, Int32(column))))
    }

    /// Integers come big-endian in one, two, four or eight bytes, by their type: BOOLEAN to BIGINT.
    func integer(_ column: Int) -> Int64 {
        let bytes = bytes(column)
        switch bytes.count {
        case 8: return Int64(bigEndian: bytes.loadUnaligned(as: Int64.self))
        case 4: return Int64(Int32(bigEndian: bytes.loadUnaligned(as: Int32.self)))
        case 2: return Int64(Int16(bigEndian: bytes.loadUnaligned(as: Int16.self)))
        case 1: return Int64(bytes[0])
        default: return 0
        }
    }

    func blob(_ column: Int) -> [UInt8] { [UInt8](bytes(column)) }

    func text(_ column: Int) -> String { String(decoding: bytes(column), as: UTF8.self) }

    /// All columns as values. Text is kept as bytes, see ``SchemaDialect``.
    var values: [SQLValue] {
        (0..<Int(PQnfields(handle))).map { column in
            if isNull(column) { return .null }
            switch PQftype(handle, Int32(column)) {
            case PostgreSQLType.bigint, PostgreSQLType.integer, PostgreSQLType.smallint, PostgreSQLType.boolean:
                return .integer(integer(column))
            default: return .blob(blob(column))
            }
        }
    }
}

/// The numbers of the server's types.
enum PostgreSQLType {
    static let boolean: UInt32 = 16
    static let bytea: UInt32 = 17
    static let bigint: UInt32 = 20
    static let smallint: UInt32 = 21
    static let integer: UInt32 = 23
    static let byteaArray: UInt32 = 1001
    static let bigintArray: UInt32 = 1016
}
