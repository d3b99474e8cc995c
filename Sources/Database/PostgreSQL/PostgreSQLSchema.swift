/// What a PostgreSQL database has besides the tables that both engines have.
enum PostgreSQLSchema {
    /// Numbers of the advisory locks: "Roost" in ASCII, and what the lock is over.
    static let positionLock: Int64 = 0x52_6f6f_7374_0001
    static let migrationLock: Int64 = 0x52_6f6f_7374_0002
    static let presenceLock: Int64 = 0x52_6f6f_7374_0003

    /// Beside the first schema.
    private static let first = [
        // Not transactional: what a transaction took and didn't use is a hole.
        "CREATE SEQUENCE positions",
        // Which transaction has changed what, so that nodes which didn't listen can catch up.
        """
        CREATE TABLE changes (position BIGINT PRIMARY KEY, node BIGINT NOT NULL, topics BYTEA NOT NULL)
        """,
    ]

    /// Replaced at each start, so that they are those of the newest binary.
    private static let functions = [
        // Whoever has the lock is the only one between taking positions and committing: they are visible in their order.
        """
        CREATE OR REPLACE FUNCTION roost_take_positions(count bigint) RETURNS bigint LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM pg_advisory_xact_lock(\(positionLock));
            RETURN setval('positions', nextval('positions') + count - 1);
        END $$
        """,
        """
        CREATE OR REPLACE FUNCTION roost_expect(changed bigint, expected bigint) RETURNS boolean LANGUAGE plpgsql AS $$
        BEGIN
            IF changed <> expected THEN
                RAISE EXCEPTION 'expected % rows, changed %', expected, changed USING ERRCODE = '\(PostgreSQLFailure.expectation)';
            END IF;
            RETURN true;
        END $$
        """,
        """
        CREATE OR REPLACE FUNCTION roost_tell(node bigint, topics bytea) RETURNS void LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO changes VALUES (currval('positions'), node, topics);
            PERFORM pg_notify('roost', currval('positions') || ' ' || node);
        END $$
        """,
    ]

    /// Brings the database to the current schema, one node at a time.
    static func prepare(_ connection: PostgreSQLConnection) throws {
        try connection.execute("BEGIN")
        // Whole tables may be rewritten, here or by the node that is waited for.
        for (name, value) in [("statement_timeout", "0"), ("enable_seqscan", "on")] {
            try connection.execute("SELECT set_config('\(name)', '\(value)', true)")
        }
        try connection.execute("SELECT pg_advisory_xact_lock(\(migrationLock))")
        var version = 0
        if case .integer(1)? = try connection.execute("SELECT (to_regclass('schema_version') IS NOT NULL)::int").first?
            .first,
            let row = try connection.execute("SELECT version, oldest_binary FROM schema_version").first,
            case .integer(let stored) = row[0], case .integer(let oldest) = row[1]
        {
            version = Int(stored)
            try Migrations.checkMayRun(version: version, oldestBinary: Int(oldest))
        }
        for migration in Migrations.all where migration.version > version {
            for statement in migration.sql { try connection.execute(SchemaDialect.postgresql(statement)) }
            for statement in migration.postgresql { try connection.execute(statement) }
            if migration.version == 1 { for statement in first { try connection.execute(statement) } }
            try connection.execute("DELETE FROM schema_version")
            try connection.execute(
                "INSERT INTO schema_version VALUES (\(migration.version), \(migration.oldestBinary))")
        }
        // Under the lock, and only by a binary that is not older than the schema: nodes of two versions don't fight over them.
        if version <= Migrations.current { for function in functions { try connection.execute(function) } }
        try connection.execute("COMMIT")
    }
}
