/// Many executions of one statement as one. Its parameters become the columns of a table, which comes in as an array for each of
/// them: the server takes as long over one execution as over twenty rows.
struct PostgreSQLBatch: Sendable {
    enum Kind: Hashable {
        /// Rows are asked for; each comes with the place of its set, from 1 on, in a last column of its own.
        case question
        /// Rows are inserted.
        case insertion
        /// Rows are deleted; what is wanted of each comes as the rows of a question do.
        case deletion
        /// Rows are changed; what is wanted of each comes in the same way.
        case change

        /// Of a statement that changes something.
        init(changing statement: Statement) {
            self =
                statement.sql.hasPrefix("DELETE")
                ? .deletion : statement.sql.hasPrefix("UPDATE") ? .change : .insertion
        }

        /// Whether rows that such a statement returns can be told apart by set.
        var tellsRowsApart: Bool { self != .insertion }

        /// In the name of a prepared statement.
        var letter: String {
            switch self {
            case .question: "q"
            case .insertion: "i"
            case .deletion: "d"
            case .change: "u"
            }
        }
    }

    /// What the text depends on, besides the statement.
    struct Form: Hashable {
        let kind: Kind
        /// A bit for each parameter that is bytes; the others are integers.
        let bytes: UInt64
    }

    let sets: [[SQLValue]]
    let form: Form

    /// With fewer sets nothing is gained.
    private static let least = 4
    /// Sets of one execution.
    private static let most = 1_000

    /// - Returns: nil if it can't be told of what type a parameter is, or nothing is gained.
    private init?(_ kind: Kind, _ sets: ArraySlice<[SQLValue]>) {
        guard sets.count >= Self.least, let first = sets.first, !first.isEmpty, first.count < 64 else { return nil }
        var bytes: UInt64 = 0
        for column in first.indices {
            guard let isBytes = sets.lazy.compactMap({ $0[column].isBytes }).first else { return nil }
            if isBytes { bytes |= 1 << UInt64(column) }
        }
        self.sets = Array(sets)
        form = Form(kind: kind, bytes: bytes)
    }

    /// The commands that carry a statement out for all sets, in their order.
    static func commands(_ kind: Kind, _ statement: Statement, _ sets: [[SQLValue]]) -> [PostgreSQLCommand] {
        if sets.count < least { return sets.map { PostgreSQLCommand(statement, $0) } }
        return stride(from: 0, to: sets.count, by: most).flatMap { start -> [PostgreSQLCommand] in
            let part = sets[start..<min(start + most, sets.count)]
            if let batch = PostgreSQLBatch(kind, part) { return [PostgreSQLCommand(statement, batch)] }
            return part.map { PostgreSQLCommand(statement, $0) }
        }
    }

    /// The text for the server.
    ///
    /// - Parameter positions: a bit for each parameter that is a position.
    func sql(_ statement: String, positions: UInt64) -> String {
        let columns = sets[0].indices
        let body = PostgreSQLCommand.replacingParameters(of: statement) { number in
            let isPosition = positions & (1 << UInt64(number - 1)) != 0
            return isPosition ? "(currval('positions') + batch_sets.c\(number))" : "batch_sets.c\(number)"
        }
        let arrays = columns.map { "$\($0 + 1)::\(form.bytes & (1 << UInt64($0)) == 0 ? "bigint" : "bytea")[]" }
        let names = columns.map { "c\($0 + 1)" }
        let table = "unnest(\(arrays.joined(separator: ", ")))"
        switch form.kind {
        case .question:
            return """
                SELECT batch_rows.*, batch_sets.place
                FROM \(table) WITH ORDINALITY AS batch_sets (\(names.joined(separator: ", ")), place),
                LATERAL (\(body)) AS batch_rows
                """
        case .insertion:
            // INSERT INTO table (columns) | VALUES (…) or SELECT … | ON CONFLICT DO NOTHING
            let source = body.index(after: body.firstIndex(of: ")")!)
            let rest = body[source...]
            let conflict = rest.indices.first { rest[$0...].hasPrefix("ON CONFLICT") } ?? rest.endIndex
            return """
                \(body[..<source]) SELECT batch_rows.* FROM \(table) AS batch_sets (\(names.joined(separator: ", "))),
                LATERAL (\(rest[..<conflict])) AS batch_rows \(rest[conflict...])
                """
        case .deletion, .change:
            // DELETE FROM table | WHERE … | RETURNING columns
            // UPDATE table SET … | WHERE … | RETURNING columns
            let isDeletion = form.kind == .deletion
            let target = body.dropFirst(isDeletion ? "DELETE FROM ".count : "UPDATE ".count).prefix {
                $0 != " " && $0 != "\n"
            }
            let start = body.indices.first { body[$0...].hasPrefix("WHERE ") } ?? body.endIndex
            let returning = body.indices.first { body[$0...].hasPrefix("RETURNING") }
            let condition = body[start..<(returning ?? body.endIndex)]
            let wanted = returning.map { "\(body[$0...]), batch_sets.place" } ?? ""
            // Each set's rows are found by themselves (OFFSET 0), as the statement alone would find them.
            return """
                \(body[..<start]) \(isDeletion ? "USING" : "FROM")
                \(table) WITH ORDINALITY AS batch_sets (\(names.joined(separator: ", ")), place),
                LATERAL (SELECT ctid AS place_of_row FROM \(target) \(condition) OFFSET 0) AS batch_rows
                WHERE \(target).ctid = batch_rows.place_of_row \(wanted)
                """
        }
    }
}

extension SQLValue {
    var isPosition: Bool { if case .position = self { true } else { false } }

    /// nil for NULL, which may be both.
    fileprivate var isBytes: Bool? {
        switch self {
        case .null: nil
        case .integer, .position: false
        case .text, .blob: true
        }
    }
}
