import Logging
import RoostTestSupport

@testable import Database

/// A database in a temporary directory.
struct TestDatabase {
    let directory: TemporaryDirectory
    let database: Database
    let engine: SQLiteEngine

    static var path: String { "roost.db" }

    init(in directory: TemporaryDirectory = TemporaryDirectory()) async throws {
        self.directory = directory
        engine = try await SQLiteEngine(path: "\(directory.path)/\(Self.path)", logger: quiet)
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
