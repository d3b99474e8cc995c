/// A step from one schema to the next. Steps are numbered, go forward only, and are never changed once released.
struct Migration: Sendable {
    /// The schema's version after the step.
    let version: Int
    /// The oldest schema version that a binary must know to run on a database after this step. A step that only adds
    /// what older binaries ignore keeps the number of the step before.
    let oldestBinary: Int
    /// Statements in the dialect of the schema files, see ``SchemaDialect``.
    let sql: [String]
}

/// All steps, in order.
enum Migrations {
    static let all: [Migration] = [.first, .second]

    /// The schema that this binary was made for.
    static var current: Int { all.last!.version }

    static func carryOut(on connection: SQLiteConnection) throws {
        var version = 0
        var oldestBinary = 0
        var exists = false
        try connection.run(
            Statement("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'schema_version'"), []
        ) { _ in exists = true }
        if exists {
            try connection.run(Statement("SELECT version, oldest_binary FROM schema_version"), []) {
                version = Int($0.integer(0))
                oldestBinary = Int($0.integer(1))
            }
        }
        guard oldestBinary <= current else {
            throw DatabaseError.unusable(
                "The database has schema \(version), made by a newer Roost; this one knows schemas up to \(current). "
                    + "Start the newer version, or restore a backup made before the upgrade.")
        }
        for migration in all where migration.version > version {
            try connection.execute("BEGIN EXCLUSIVE")
            do {
                for statement in migration.sql { try connection.execute(SchemaDialect.sqlite(statement)) }
                try connection.execute(
                    """
                    DELETE FROM schema_version;
                    INSERT INTO schema_version VALUES (\(migration.version), \(migration.oldestBinary))
                    """)
                try connection.execute("COMMIT")
            } catch {
                try? connection.execute("ROLLBACK")
                throw error
            }
        }
    }
}

/// The schema is written once. Words in capitals that no engine knows stand for what differs:
/// `IDENTITY` (a number the engine gives), `BYTES`, `NUMBER`, and `CLUSTERED` after a table (kept in the order of its
/// primary key where the engine can).
enum SchemaDialect {
    static func sqlite(_ sql: String) -> String {
        replace(
            sql,
            [
                "IDENTITY": "INTEGER PRIMARY KEY", "BYTES": "BLOB", "NUMBER": "INTEGER",
                "CLUSTERED": "STRICT, WITHOUT ROWID",
                "HEAP": "STRICT",
            ])
    }

    /// Replaces whole words.
    private static func replace(_ sql: String, _ words: [String: String]) -> String {
        var result = ""
        var word = ""
        func flush() {
            result += words[word] ?? word
            word = ""
        }
        for character in sql {
            if character.isLetter || character == "_" {
                word.append(character)
            } else {
                flush()
                result.append(character)
            }
        }
        flush()
        return result
    }
}
