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

    @Test("are opened, upgraded and whole, and go on", arguments: [1, 2, 3, 4, 5, 6])
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

    /// The device of user 1 had four keys, of which the first was claimed.
    @Test("one-time keys of a database from before their pools are there, and the claimed one is known")
    func keys() async throws {
        let directory = TemporaryDirectory()
        try await place(6, in: directory)
        let test = try await TestDatabase(in: directory)
        let user = UserNID(1)
        let keys = ["A", "BB", "C", "DDD"].map {
            PublicKey(algorithm: "curve25519", keyID: $0, json: Array("\"key \($0)\"".utf8), publicKey: "key \($0)")
        }
        let (device, pool, sorted) = try await test.database.read { reader in
            let found = try await reader.first(Statement("SELECT device_id FROM one_time_key_pools"), []) { $0.text(0) }
            let device = try #require(found)
            let pool = try await test.database.oneTimeKeys(of: user, device, reader)
            return (device, pool, try await test.database.sort(keys, by: pool, of: user, device, reader))
        }
        #expect(pool.unclaimed == ["curve25519": 3])
        #expect(sorted.new.isEmpty && sorted.different == nil)
        for id in ["BB", "C", "DDD", nil] {
            var write = Write()
            let places = write.takeOneTimeKeys([KeyClaim(user: user, deviceID: device, algorithm: "curve25519")])
            let key = try await test.database.write(write).rows[places[0]].first.flatMap { ClaimedKey(row: $0) }
            #expect(key?.keyID == id)
            #expect(key.map { String(decoding: $0.json, as: UTF8.self) } == id.map { "\"key \($0)\"" })
        }
        var write = Write()
        let new = PublicKey(algorithm: "curve25519", keyID: "E", json: Array("\"new\"".utf8), publicKey: "new")
        let spent = try await test.database.read { try await test.database.oneTimeKeys(of: user, device, $0) }
        write.addOneTimeKeys([new], to: spent, of: user, device, remembering: 3)
        try await test.database.write(write)
        let (left, again) = try await test.database.read { reader in
            let pool = try await test.database.oneTimeKeys(of: user, device, reader)
            return (pool, try await test.database.sort(keys, by: pool, of: user, device, reader).new)
        }
        #expect(left.rowCount == 2 && left.unclaimed == ["curve25519": 1])
        // Three were to be remembered: what was claimed before the upgrade stands behind the keys of its upload.
        #expect(again.map(\.keyID) == ["BB"])
        await test.close()
    }
}
