/// What is done to a server besides being an engine on it.
public enum PostgreSQLAdministration {
    /// Runs statements one after another on a connection of their own, and answers the rows of the last one. Blocks a thread of
    /// its own meanwhile.
    @discardableResult
    public static func run(_ statements: String..., at url: String) async throws -> [[SQLValue]] {
        let thread = WorkThread<@Sendable () -> Void>(most: 1) { for work in $0 { work() } }
        let result: Result<[[SQLValue]], any Error> = await withCheckedContinuation { continuation in
            _ = thread.add {
                continuation.resume(
                    returning: Result {
                        let connection = try PostgreSQLConnection(url: url, purpose: .listening)
                        var rows: [[SQLValue]] = []
                        for statement in statements { rows = try connection.execute(statement) }
                        return rows
                    })
            }
        }
        await thread.close()
        return try result.get()
    }
}
