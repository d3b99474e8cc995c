import RoostTestSupport
import Testing

@testable import Database

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// A database of every released schema is kept in `Fixtures`: four rooms of different versions with two people who talk.
@Suite("Databases of released schemas", .onEachEngine)
struct FixtureTests {
    private static let fixtures = #filePath.split(separator: "/").dropLast().map { "/\($0)" }.joined() + "/Fixtures"

    private func bytes(_ path: String) throws -> [UInt8] {
        let file = try #require(fopen(path, "rb"), "\(path) can't be read")
        defer { fclose(file) }
        fseek(file, 0, SEEK_END)
        var bytes = [UInt8](repeating: 0, count: ftell(file))
        rewind(file)
        try #require(fread(&bytes, 1, bytes.count, file) == bytes.count)
        return bytes
    }

    /// Puts the fixture where the test's engine will find it.
    private func place(_ schema: Int, in directory: TemporaryDirectory) async throws {
        switch EngineKind.current {
        case .sqlite:
            let content = try bytes("\(Self.fixtures)/schema-\(schema)/sqlite.db")
            let file = try #require(fopen("\(directory.path)/roost.db", "wb"))
            #expect(fwrite(content, 1, content.count, file) == content.count)
            fclose(file)
        case .postgresql:
            let script = String(decoding: try bytes("\(Self.fixtures)/schema-\(schema)/postgresql.sql"), as: UTF8.self)
            try await PostgreSQLAdministration.run(script: script, at: try await EngineKind.url(of: directory))
        }
    }

    @Test("are opened, upgraded and whole, and go on", arguments: [1, 2, 3, 4, 5])
    func opened(schema: Int) async throws {
        let directory = TemporaryDirectory()
        try await place(schema, in: directory)
        let test = try await TestDatabase(in: directory)
        let report = try await ConsistencyCheck(test.database).run()
        #expect(report.problems == [])
        #expect(report.rooms == 4 && report.events > 60)
        let version = try await test.database.read { reader in
            try await reader.first(Statement("SELECT version FROM schema_version"), []) { Int($0.integer(0)) }
        }
        #expect(version == Migrations.current)
        let before = test.database.committedPosition
        #expect(before > 60)
        var write = Write()
        let position = write.takePosition()
        write.run(WritingTests.insertAtPosition, .integer(1), .text("new"), .blob([]), position)
        #expect(try await test.database.write(write).firstPosition > before)
        #expect(try await test.database.newEventNumbers(1).rawValue > Int64(report.events))
        await test.close()
    }
}
