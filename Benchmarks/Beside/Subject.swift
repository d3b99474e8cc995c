import CSQLite
import MatrixCore
import NIOCore
import RoostTestSupport

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// One of the servers that are measured: how it is started, and what was found out about it.
final class Subject: @unchecked Sendable {
    struct Figure {
        let what: String
        let unit: String
        let value: Double
    }

    let letter: String
    private let command: String
    /// Events of each kind in `state-bytes`.
    let events: Int
    /// Seconds that a scenario may take.
    let limit: Double
    private(set) var figures: [Figure] = []
    /// Why there are no more figures.
    var failure: String?
    private(set) var server: ServerProcess!
    private var directory: TemporaryDirectory!
    private(set) var port = 0
    /// CPU seconds of those that were started before this one.
    private var endedCPU = 0.0

    init(_ letter: String, _ command: String, events: Int, limit: Double) {
        (self.letter, self.command, self.events, self.limit) = (letter, command, events, limit)
    }

    /// Runs a scenario on a new server.
    func run(_ scenario: @escaping @Sendable (Subject) async throws -> Void) async {
        figures = []
        failure = nil
        server = nil
        endedCPU = 0
        directory = TemporaryDirectory()
        // The database of a user of its own lies in there.
        chmod(directory.path, 0o755)
        let began = Bench.wallSeconds()
        let (cpu, busy) = (Bench.cpuSeconds(), Self.busySeconds())
        do {
            port = try await ServerProcess.freePort()
            try await start()
            let watch = Task {
                try await Task.sleep(for: .seconds(self.limit))
                self.failure = "not within \(Int(self.limit)) s"
                // Those who wait for an answer then have none. One that is at work may take its time to end.
                await self.server.end(within: 10)
            }
            defer { watch.cancel() }
            print("  \(letter): ready after \(server.secondsToReady) s")
            try await scenario(self)
        } catch {
            if failure == nil { failure = "\(error)" }
            print("  \(letter): \(failure ?? "")")
        }
        let seconds = Bench.wallSeconds() - began
        let own = Bench.cpuSeconds() - cpu
        let others = Self.busySeconds() - busy - own - endedCPU - (server?.cpuSeconds() ?? 0)
        await server?.end()
        note("time for all of it", seconds, "s")
        note("CPU of the measuring program", own / seconds, "cores")
        note("CPU of other programs", max(0, others) / seconds, "cores")
    }

    /// CPU seconds of the whole machine since its start.
    private static func busySeconds() -> Double {
        let fields = ServerProcess.text("/proc/stat").prefix { $0 != "\n" }.split(separator: " ").dropFirst().map {
            Double($0) ?? 0
        }
        guard fields.count > 7 else { return 0 }
        return (fields[0...2].reduce(0, +) + fields[5...7].reduce(0, +)) / Double(sysconf(CInt(_SC_CLK_TCK)))
    }

    func start() async throws {
        let data = "\(directory.path)/data"
        mkdir(data, 0o755)
        let words = command.split(separator: " ").map {
            String($0.replacing("{port}", with: "\(port)").replacing("{dir}", with: data))
        }
        server = try await ServerProcess.start(words, port: port, log: "\(directory.path)/log")
    }

    func restart() async throws {
        endedCPU += server.cpuSeconds()
        await server.end()
        try await start()
    }

    func note(_ what: String, _ value: Double, _ unit: String) {
        figures.append(Figure(what: what, unit: unit, value: value))
        Bench.report("\(letter): \(what)", value, unit)
    }

    /// Accounts made by open registration, two at a time.
    func users(_ name: String, _ count: Int, on loop: (any EventLoop)? = nil) async throws -> [BenchClient] {
        let port = port
        let made = try await withThrowingTaskGroup(of: [(Int, BenchClient)].self) { tasks in
            for lane in 0..<2 {
                tasks.addTask {
                    var clients: [(Int, BenchClient)] = []
                    for number in stride(from: lane, to: count, by: 2) {
                        clients.append((number, try await .registered("\(name)\(number)", port: port, on: loop)))
                    }
                    return clients
                }
            }
            return try await tasks.reduce(into: []) { $0 += $1 }
        }
        return made.sorted { $0.0 < $1.0 }.map(\.1)
    }

    /// The room of the first, which the others have joined.
    @discardableResult
    func room(_ members: [BenchClient]) async throws -> String {
        let room = try await members[0].ask(
            .POST, "/_matrix/client/v3/createRoom", #"{"preset":"public_chat","room_version":"11"}"#)["room_id"]?.string
        guard let room else { throw BenchFailure(what: "no room was made") }
        for member in members {
            member.room = room
            if member !== members[0] { try await member.ask(.POST, "/_matrix/client/v3/join/\(room)", "{}") }
        }
        return room
    }

    /// What it stores: files of SQLite with their logs, and those of a cluster's databases.
    func databaseBytes() -> Double { Double(Self.files(below: directory.path).reduce(0) { $0 + $1.bytes }) }

    /// Rows of all tables, if it is on SQLite.
    func rows() -> Double? {
        var sum = 0.0
        let files = Self.files(below: directory.path).filter { $0.isSQLite }
        for file in files {
            var database: OpaquePointer?
            guard sqlite3_open_v2(file.path, &database, SQLITE_OPEN_READWRITE, nil) == SQLITE_OK else { return nil }
            defer { sqlite3_close(database) }
            sqlite3_busy_timeout(database, 5_000)
            for table in Self.column(
                database, "SELECT name FROM sqlite_schema WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%'")
            {
                sum += Double(Self.column(database, "SELECT count(*) FROM \"\(table)\"").first ?? "") ?? 0
            }
        }
        return files.isEmpty ? nil : sum
    }

    private static func column(_ database: OpaquePointer?, _ sql: String) -> [String] {
        var statement: OpaquePointer?
        guard sqlite3_prepare_v2(database, sql, -1, &statement, nil) == SQLITE_OK else { return [] }
        defer { sqlite3_finalize(statement) }
        var values: [String] = []
        while sqlite3_step(statement) == SQLITE_ROW {
            if let text = sqlite3_column_text(statement, 0) { values.append(String(cString: text)) }
        }
        return values
    }

    private struct File {
        let path: String
        let bytes: Int
        let isSQLite: Bool
    }

    private static func files(below path: String) -> [File] {
        var found: [File] = []
        for name in ServerProcess.names(in: path) {
            let path = "\(path)/\(name)"
            var status = stat()
            guard lstat(path, &status) == 0 else { continue }
            if status.st_mode & S_IFMT == S_IFDIR {
                found += files(below: path)
            } else if status.st_mode & S_IFMT == S_IFREG {
                let isSQLite = hasSQLiteHeader(path)
                if isSQLite || name.hasSuffix("-wal") || path.split(separator: "/").contains("base") {
                    found.append(File(path: path, bytes: Int(status.st_size), isSQLite: isSQLite))
                }
            }
        }
        return found
    }

    private static func hasSQLiteHeader(_ path: String) -> Bool {
        guard let file = fopen(path, "r") else { return false }
        defer { fclose(file) }
        var header = [UInt8](repeating: 0, count: 15)
        return fread(&header, 1, 15, file) == 15 && header == Array("SQLite format 3".utf8)
    }
}
