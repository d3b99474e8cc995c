import Database
import Logging

/// What whoever runs the server does with its database as a whole.
public final class MaintenanceService: Sendable {
    private let database: Database
    private let configuration: Configuration
    private let surroundings: Surroundings
    private let logger: Logger

    init(database: Database, configuration: Configuration, surroundings: Surroundings, logger: Logger) {
        self.database = database
        self.configuration = configuration
        self.surroundings = surroundings
        self.logger = logger
    }

    /// Looks for contradictions. Reads everything; the server goes on meanwhile.
    public func check() async throws -> ConsistencyCheck.Report {
        try await OwnThread.run { [database] in try await ConsistencyCheck(database).run() }
    }

    /// Makes a backup while the server goes on, see ``Backup``.
    public func backUp(to directory: String) async throws -> Backup.Summary {
        do {
            return try await OwnThread.run { [database, configuration, surroundings, logger] in
                try await Backup.make(
                    of: database, serverName: configuration.serverName, mediaPath: configuration.media.path,
                    into: directory, now: surroundings.now(), logger: logger)
            }
        } catch let problem as Backup.Problem {
            throw MatrixError(.unknown, problem.description, status: 400)
        } catch let failure as Files.Failure {
            throw MatrixError(.unknown, failure.description, status: 400)
        } catch let error as DatabaseError {
            throw MatrixError(.unknown, error.description)
        }
    }
}
