import Foundation
import RoostTestSupport
import Testing

@testable import Database

@Suite("A log of SQLite that is written in one call for each commit")
struct GatheringLogTests {
    private static let put = Statement("INSERT OR REPLACE INTO things (number, bytes) VALUES ($1, $2)")
    private static let drop = Statement("DELETE FROM things WHERE number = $1")
    private static let all = Statement("SELECT number, bytes FROM things")
    private static let check = Statement("PRAGMA integrity_check")

    private func things(_ connection: SQLiteConnection) throws -> [Int64: [UInt8]] {
        var found: [Int64: [UInt8]] = [:]
        try connection.run(Self.all, []) { found[$0.integer(0)] = $0.blob(1) }
        return found
    }

    /// Puts and drops a few things, and notes what should be there then.
    private func change(
        _ connection: SQLiteConnection, _ expected: inout [Int64: [UInt8]], _ random: inout SeededGenerator
    ) throws {
        for _ in 0..<Int.random(in: 1...40, using: &random) {
            let number = Int64.random(in: 0..<200, using: &random)
            if Bool.random(using: &random) {
                let bytes = [UInt8](
                    repeating: .random(in: 0...255, using: &random), count: .random(in: 0...9_000, using: &random))
                try connection.run(Self.put, [.integer(number), .blob(bytes)])
                expected[number] = bytes
            } else {
                try connection.run(Self.drop, [.integer(number)])
                expected[number] = nil
            }
        }
    }

    /// The database as a process finds it that begins when this one is killed.
    private func found(at path: String) throws -> [Int64: [UInt8]] {
        let directory = TemporaryDirectory()
        for file in ["", "-wal"] {
            try FileManager.default.copyItem(atPath: path + file, toPath: "\(directory.path)/copy.db\(file)")
        }
        let connection = try SQLiteConnection(path: "\(directory.path)/copy.db", mode: .readWrite)
        return try things(connection)
    }

    @Test("others see each commit whole and nothing else, and who is killed after it loses nothing", arguments: 1...6)
    func commits(seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        let directory = TemporaryDirectory()
        let path = "\(directory.path)/roost.db"
        let writer = try SQLiteConnection(path: path, mode: .gathering)
        // So few pages in memory that transactions write into the log before they end, and read there what they have written.
        for pragma in ["journal_mode = WAL", "synchronous = FULL", "wal_autocheckpoint = 0", "cache_size = 10"] {
            try writer.execute("PRAGMA \(pragma)")
        }
        try writer.execute("CREATE TABLE things (number INTEGER PRIMARY KEY, bytes BLOB NOT NULL)")
        let reader = try SQLiteConnection(path: path, mode: .readOnly)
        let copier = try SQLiteConnection(path: path, mode: .readWrite)
        _ = try things(copier)
        var committed: [Int64: [UInt8]] = [:]
        for round in 0..<60 {
            var expected = committed
            try writer.execute("BEGIN IMMEDIATE")
            // Without savepoints, which Roost doesn't use: docs/database.md tells why.
            try change(writer, &expected, &random)
            #expect(try things(reader) == committed)
            #expect(try things(writer) == expected)
            if Int.random(in: 0..<5, using: &random) == 0 {
                try writer.execute("ROLLBACK")
            } else {
                try writer.execute("COMMIT")
                committed = expected
            }
            #expect(try things(reader) == committed)
            if round % 6 == 0 { #expect(try found(at: path) == committed) }
            switch Int.random(in: 0..<8, using: &random) {
            case 0: _ = try copier.checkpoint()
            case 1: copier.checkpointAndTruncate()
            default: break
            }
        }
        var report: [String] = []
        try copier.run(Self.check, []) { report.append($0.text(0)) }
        #expect(report == ["ok"])
    }
}
