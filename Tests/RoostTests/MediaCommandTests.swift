import Glibc
import Logging
import MatrixCore
import RoostTestSupport
import Testing

@testable import Database
@testable import Homeserver
@testable import HomeserverHTTP
@testable import roost

@Suite("roost media purge", .serialized)
struct MediaCommandTests {
    private let directory = TemporaryDirectory()
    private let silent = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
    private var media: String { "\(directory.path)/media" }
    private var database: String { "\(directory.path)/roost.db" }

    /// Keeps two files of another server, one of which was fetched three hours ago, and returns where they lie.
    private func keepFiles(in database: Database) async throws -> (old: String, new: String) {
        let store = try BlobStore(directory: media)
        let now = SystemClock.millisecondsSince1970()
        let server = try await database.number(ofServer: ServerName(unchecked: "elsewhere.example"))
        var places: [String] = []
        for (name, age) in [("old", Int64(3)), ("new", 1)] {
            let bytes = Array("the \(name) file".utf8)
            let hash = Hashing.sha256(bytes)
            let path = store.path(of: hash)
            try Files.makeDirectories(Files.parent(of: path))
            try Files.write(bytes, to: path)
            let time = now - age * 3_600_000 - 60_000
            var times = [timeval](repeating: timeval(tv_sec: Int(time / 1_000), tv_usec: 0), count: 2)
            #expect(utimes(path, &times) == 0)
            var write = Write()
            write.insert(
                MediaRecord(
                    mediaID: name, uploader: UserNID(0), createdTS: time, contentType: nil, fileName: nil,
                    size: Int64(bytes.count), contentHash: hash), of: server)
            try await database.write(write)
            places.append(path)
        }
        return (places[0], places[1])
    }

    @Test("removes what was fetched before, without a server")
    func alone() async throws {
        let database = Database(engine: try await SQLiteEngine(path: database, logger: silent))
        let files = try await keepFiles(in: database)
        await database.close()
        // Once only: the command sets up logging for its process.
        let command = try MediaCommand.Purge.parse(["--older-than", "2h", "--data", directory.path])
        try await command.run()
        #expect(!Files.exists(files.old) && Files.exists(files.new))
    }

    @Test("has the server that runs do it, and says what that says against it")
    func besideServer() async throws {
        let server = try await TestServer(
            directory: directory, clock: ManualSurroundings(now: SystemClock.millisecondsSince1970()),
            engine: try await SQLiteEngine(path: database, logger: silent))
        let home = server.homeserver
        let files = try await keepFiles(in: home.database)
        let endpoints = MaintenanceEndpoints.all(home.maintenance, keys: home.signingKeys, media: home.mediaPurging)
        let http = try await HTTPServer.start(
            [Listener(.unix(path: DataDirectory.socketPath(in: directory.path), mode: 0o600), serves: .local)],
            reply: Router(endpoints).reply)
        let command = try MediaCommand.Purge.parse(["--older-than", "2h", "--data", directory.path])
        try await command.run()
        #expect(!Files.exists(files.old) && Files.exists(files.new))

        var configuration = Configuration()
        configuration.dataPath = directory.path
        let connection = AdminConnection(configuration: configuration)
        let answer = try await connection.send(.POST, "/media/purge", ["fetched_before": .integer(server.clock.now)])
        #expect(answer.root["files"]?.integer == 1 && answer.root["bytes"]?.integer == 12)
        await #expect(throws: Failure.self) { try await connection.send(.POST, "/media/purge") }
        await http.shutdown(within: .seconds(5))
        await server.close()
    }

    @Test("takes no age that is none")
    func wrong() async throws {
        let command = try MediaCommand.Purge.parse(["--older-than", "old", "--data", directory.path])
        await #expect(throws: (any Error).self) { try await command.run() }
        #expect(Files.names(in: directory.path).isEmpty)
    }
}
