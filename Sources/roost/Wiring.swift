import Database
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
    /// What `roost db` and `roost backup` do.
    var maintenance: MaintenanceService
    /// What `roost media` does.
    var mediaPurging: RemoteMediaPurging
    /// What `roost keys` does.
    var keys: SigningKeys
    var databaseAnswers: @Sendable () async -> Bool
    /// Whether there is an account yet; without one, `roost serve` says how to make it.
    var hasAccounts: Bool
    /// Tells requests that wait for news to answer: the server shuts down.
    var drain: @Sendable () async -> Void
    /// Finishes what is being written and closes the database. Nothing is asked of the application afterwards.
    var stop: @Sendable () async -> Void

    /// The endpoints of the local socket: the command line's.
    func localEndpoints(_ configuration: Configuration) -> [Endpoint] {
        AdminEndpoints.all(administration, baseURL: configuration.publicBaseURL)
            + MaintenanceEndpoints.all(maintenance, keys: keys, media: mediaPurging)
    }
}

/// Builds the application of a configuration.
enum Wiring {
    static func start(_ configuration: Configuration) async throws -> Application {
        let logger = Logger(label: "roost")
        let lock = try ProcessLock.database(configuration.database)
        let homeserver: Homeserver
        do {
            homeserver = try await Homeserver(
                configuration: configuration, engine: try await engine(configuration.database, logger),
                surroundings: .real, logger: logger,
                transport: try NetworkTransport(configuration.federation, now: Surroundings.real.now))
        } catch let error as DatabaseError {
            if case .unusable = error { throw Failure(error.description, status: Failure.configurationStatus) }
            throw Failure(error.description)
        } catch let error as MatrixError {
            throw Failure(error.message)
        }
        try await homeserver.startJobs()
        let client = ClientAPI(homeserver)
        return Application(
            endpoints: client.endpoints + FederationAPI(homeserver).endpoints, admit: client.gate,
            administration: AccountAdministration(homeserver),
            maintenance: homeserver.maintenance, mediaPurging: homeserver.mediaPurging, keys: homeserver.signingKeys,
            databaseAnswers: { await homeserver.database.answers() }, hasAccounts: try await homeserver.hasAccounts(),
            drain: { homeserver.drain() },
            stop: {
                await homeserver.close()
                withExtendedLifetime(lock) {}
            })
    }

    private static func engine(
        _ location: Configuration.DatabaseLocation, _ logger: Logger
    ) async throws -> any Engine {
        switch location {
        case .sqlite(let path): return try await SQLiteEngine(path: path, logger: logger)
        case .postgresql(let url): return try await PostgreSQLEngine(url: url, logger: logger)
        }
    }
}
