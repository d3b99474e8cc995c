/// What is done to a server besides being an engine on it.
public enum PostgreSQLAdministration {
    /// Runs statements one after another on a connection of their own, and answers the rows of the last one. Blocks a thread of
    /// its own meanwhile.
    @discardableResult
    public static func run(_ statements: String..., at url: String) async throws -> [[SQLValue]] {
        try await connected(to: url) { connection in
            var rows: [[SQLValue]] = []
            for statement in statements { rows = try connection.execute(statement) }
            return rows
        }
    }

    /// Runs a text of many statements, such as a dump.
    public static func run(script: String, at url: String) async throws {
        try await connected(to: url) { try $0.script(script) }
    }

    private static func connected<T: Sendable>(
        to url: String, _ body: @escaping @Sendable (PostgreSQLConnection) throws -> T
    ) async throws -> T {
        let thread = WorkThread<@Sendable () -> Void>(most: 1) { for work in $0 { work() } }
        let result: Result<T, any Error> = await withCheckedContinuation { continuation in
            _ = thread.add {
                continuation.resume(
                    returning: Result { try body(try PostgreSQLConnection(url: url, purpose: .listening)) })
            }
        }
        await thread.close()
        return try result.get()
    }
}
