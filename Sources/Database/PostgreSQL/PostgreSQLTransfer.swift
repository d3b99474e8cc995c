/// Moving all that a database holds from one engine to the other: for backups, and for changing the engine.
extension PostgreSQLEngine {
    /// Tables of this engine alone.
    private static let ownTables: Set<String> = ["changes"]

    public func damage() async throws -> [String] {
        // The server checks what it reads; reading everything is what can be asked of it.
        let url = url
        return try await onOwnThread {
            let connection = try PostgreSQLConnection(url: url, purpose: .listening)
            try connection.execute("SELECT set_config('statement_timeout', '0', false)")
            var found: [String] = []
            for table in try Self.tables(of: connection) {
                do { try connection.execute("SELECT sum(length(t.*::text)) FROM \(table) t") } catch {
                    if case DatabaseError.unavailable = error { throw error }
                    found.append("table \(table): \(error)")
                }
            }
            return found
        }
    }

    private static func tables(of connection: PostgreSQLConnection) throws -> [String] {
        try connection.execute(
            """
            SELECT c.relname::text::bytea FROM pg_class c WHERE c.relkind = 'r' AND c.relnamespace =
            (SELECT relnamespace FROM pg_class WHERE oid = 'schema_version'::regclass) ORDER BY 1
            """
        ).compactMap { row in
            guard case .blob(let bytes) = row[0] else { return nil }
            return String(decoding: bytes, as: UTF8.self)
        }
    }

    /// Columns that hold text in SQLite, and bytes here.
    private struct Column {
        let name: String
        let isText: Bool
    }

    private static func columns(of table: String, _ file: SQLiteConnection) throws -> [Column] {
        var columns: [Column] = []
        try file.run(Statement("SELECT name, type FROM pragma_table_info('\(table)') ORDER BY cid"), []) {
            columns.append(Column(name: $0.text(0), isText: $0.text(1) == "TEXT"))
        }
        return columns
    }

    private static func tables(of file: SQLiteConnection) throws -> [String] {
        var tables: [String] = []
        try file.run(
            Statement("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"),
            []
        ) {
            tables.append($0.text(0))
        }
        return tables
    }

    private static let rowsPerPage = 500
    /// Of large rows fewer make a page.
    private static let bytesPerPage = 8 << 20
    /// A statement of PostgreSQL can't have more.
    private static let mostParameters = 65_535

    public func copy(to path: String) async throws {
        let url = url
        try await onOwnThread {
            let file = try SQLiteConnection(path: path, mode: .readWrite)
            try file.execute("PRAGMA synchronous = FULL")
            try Migrations.carryOut(on: file)
            let connection = try PostgreSQLConnection(url: url, purpose: .listening)
            try connection.execute("SELECT set_config('statement_timeout', '0', false)")
            try connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            // Another node may have a newer schema, of whose tables and columns this binary knows nothing.
            guard
                case .integer(let schema)? = try connection.execute("SELECT version FROM schema_version").first?.first,
                schema == Migrations.current
            else {
                throw DatabaseError.unusable(
                    "The database has another schema than \(Migrations.current); make the backup with the newest Roost that uses it."
                )
            }
            let fetch = Statement("FETCH \(Self.rowsPerPage) FROM pages")
            let there = Set(try Self.tables(of: connection))
            try file.execute("BEGIN EXCLUSIVE")
            for table in try Self.tables(of: file) {
                try file.execute("DELETE FROM \(table)")
                guard there.contains(table) else { continue }
                let columns = try Self.columns(of: table, file)
                let names = columns.map(\.name).joined(separator: ", ")
                let places = columns.indices.map { "$\($0 + 1)" }.joined(separator: ", ")
                let insert = Statement("INSERT INTO \(table) (\(names)) VALUES (\(places))")
                try connection.execute("DECLARE pages NO SCROLL CURSOR FOR SELECT \(names) FROM \(table)")
                while true {
                    let rows = try connection.query(fetch, []).rows
                    for row in rows {
                        let values = zip(columns, row).map { column, value -> SQLValue in
                            if column.isText, case .blob(let bytes) = value {
                                return .text(String(decoding: bytes, as: UTF8.self))
                            }
                            return value
                        }
                        try file.run(insert, values)
                    }
                    if rows.count < Self.rowsPerPage { break }
                }
                try connection.execute("CLOSE pages")
            }
            // Positions are counted by a sequence here, and by the table there.
            guard
                case .integer(let last)? = try connection.execute(
                    "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM positions"
                ).first?.first
            else { throw DatabaseError.corrupt("the sequence of positions is missing") }
            try file.execute("UPDATE counters SET next = \(last + 1) WHERE name = 'position'")
            try file.execute("COMMIT")
            try connection.execute("COMMIT")
            file.checkpointAndTruncate()
        }
    }

    /// Fills an empty database with what an SQLite file of the same schema holds, in one transaction.
    ///
    /// - Throws: ``DatabaseError/unusable(_:)`` if somebody has written into the database already.
    public static func fill(url: String, from path: String) async throws {
        let thread = WorkThread<@Sendable () -> Void>(most: 1) { for work in $0 { work() } }
        let result: Result<Void, any Error> = await withCheckedContinuation { continuation in
            _ = thread.add { continuation.resume(returning: Result { try fillNow(url, path) }) }
        }
        await thread.close()
        try result.get()
    }

    private static func fillNow(_ url: String, _ path: String) throws {
        let file = try SQLiteConnection(path: path, mode: .readOnly)
        var schema = 0
        try file.run(Statement("SELECT version FROM schema_version"), []) { schema = Int($0.integer(0)) }
        guard schema == Migrations.current else {
            throw DatabaseError.unusable("The file \(path) has schema \(schema), not \(Migrations.current).")
        }
        let connection = try PostgreSQLConnection(url: url, purpose: .listening)
        try PostgreSQLSchema.prepare(connection)
        try connection.execute("SELECT set_config('statement_timeout', '0', false)")
        try connection.execute("BEGIN")
        try connection.execute("SELECT pg_advisory_xact_lock(\(PostgreSQLSchema.migrationLock))")
        // What a new database has rows of.
        let initial: Set = ["counters", "schema_version", "background_migrations"]
        for table in try tables(of: file) where !initial.contains(table) {
            guard try connection.execute("SELECT 1 FROM \(table) LIMIT 1").isEmpty else {
                throw DatabaseError.unusable("The PostgreSQL database is not empty; restore into a new one.")
            }
        }
        for table in try tables(of: file) {
            try connection.execute("DELETE FROM \(table)")
            let columns = try columns(of: table, file)
            let names = columns.map(\.name).joined(separator: ", ")
            // Rows in one statement: of a page as many as it can have parameters for.
            let most = min(rowsPerPage, mostParameters / columns.count)
            func insertion(of rows: Int) -> Statement {
                let sets = (0..<rows).map { row in
                    "(" + columns.indices.map { "$\(row * columns.count + $0 + 1)" }.joined(separator: ", ") + ")"
                }
                return Statement("INSERT INTO \(table) (\(names)) VALUES \(sets.joined(separator: ", "))")
            }
            let page = insertion(of: most)
            var values: [SQLValue] = []
            var bytes = 0
            func write() throws {
                let rows = values.count / columns.count
                if rows == 0 { return }
                _ = try connection.query(rows == most ? page : insertion(of: rows), values)
                values.removeAll(keepingCapacity: true)
                bytes = 0
            }
            try file.run(Statement("SELECT \(names) FROM \(table)"), []) { row in
                let row = row.values
                values += row
                bytes += row.reduce(0) { $0 + $1.byteCount }
                if values.count == most * columns.count || bytes >= bytesPerPage { try write() }
            }
            try write()
        }
        for (table, column) in [
            ("users", "user_nid"), ("servers", "server_nid"), ("event_types", "type_nid"),
            ("state_keys", "state_key_nid"),
        ] {
            try connection.execute(
                """
                SELECT setval(pg_get_serial_sequence('\(table)', '\(column)'), greatest(max(\(column)), 1)) FROM \(table)
                """)
        }
        // The position that everything in the file is at or below.
        try connection.execute(
            "SELECT setval('positions', greatest(next - 1, 1)) FROM counters WHERE name = 'position'")
        try connection.execute("DELETE FROM changes")
        try connection.execute("INSERT INTO changes SELECT last_value, 0, ''::bytea FROM positions")
        try connection.execute("COMMIT")
        try connection.execute("ANALYZE")
    }
}

extension SQLValue {
    /// About as many bytes as it has on the way.
    fileprivate var byteCount: Int {
        switch self {
        case .null, .integer, .position: 8
        case .text(let text): text.utf8.count
        case .blob(let bytes): bytes.count
        }
    }
}
