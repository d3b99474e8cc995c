/// `GET /health`, for whatever watches over the server.
public enum HealthEndpoint {
    /// - Parameter databaseAnswers: asks the database something small.
    public static func make(databaseAnswers: @escaping @Sendable () async -> Bool) -> Endpoint {
        Endpoint(.GET, "/health", api: .health, authentication: .none, rateLimit: .none) { _ in
            await databaseAnswers()
                ? .json(["status": "ok"])
                : .json(["status": "error", "error": "The database doesn't answer."], status: .serviceUnavailable)
        }
    }
}
