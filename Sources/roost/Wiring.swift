import Homeserver
import HomeserverHTTP
import Logging

/// A homeserver without its listeners: the services behind the endpoints, and what the command line needs of them.
struct Application: Sendable {
    /// The endpoints of all APIs.
    var endpoints: [Endpoint] = []
    /// Authentication and rate limits.
    var admit: Router.Gate = { _, _ in }
    /// What `roost user` and `roost token` do.
    var administration: any AdminService
    var databaseAnswers: @Sendable () async -> Bool
    /// Whether there is an account yet; without one, `roost serve` says how to make it.
    var hasAccounts: Bool
    /// Tells requests that wait for news to answer: the server shuts down.
    var drain: @Sendable () async -> Void
    /// Finishes what is being written and closes the database. Nothing is asked of the application afterwards.
    var stop: @Sendable () async -> Void
}

/// Builds the application of a configuration.
enum Wiring {
    static func start(_ configuration: Configuration) async throws -> Application {
        throw Failure("this build has no services")
    }
}
