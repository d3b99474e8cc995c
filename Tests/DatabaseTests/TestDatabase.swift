import Logging
import RoostTestSupport

@testable import Database

/// A database of its own, on the engine of the current test.
struct TestDatabase {
    let directory: TemporaryDirectory
    let database: Database
    let engine: any Engine

    init(in directory: TemporaryDirectory = TemporaryDirectory()) async throws {
        self.directory = directory
        engine = try await EngineKind.engine(in: directory, logger: quiet)
        database = Database(engine: engine)
    }

    func close() async { await database.close() }
}

/// A logger that says nothing: tests look at results.
let quiet: Logger = {
    var logger = Logger(label: "test")
    logger.logLevel = .critical
    return logger
}()
