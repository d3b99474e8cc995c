import RoostTestSupport
import Testing

@testable import roost

@Suite("Locks of what one process works with")
struct ProcessLockTests {
    private let directory = TemporaryDirectory()

    @Test("one process has a data directory")
    func dataDirectory() throws {
        let path = "\(directory.path)/some/where"
        let lock = try DataDirectory(path)
        #expect(throws: Failure.self) { try DataDirectory(path) }
        withExtendedLifetime(lock) {}
    }

    @Test("one process has a database, whatever their data directories")
    func database() throws {
        let path = "\(directory.path)/elsewhere/roost.db"
        var lock = try ProcessLock.database(.sqlite(path: path))
        let failure = #expect(throws: Failure.self) { try ProcessLock.database(.sqlite(path: path)) }
        #expect(failure?.message.contains("data_path") == true)
        lock = nil
        lock = try ProcessLock.database(.sqlite(path: path))
        withExtendedLifetime(lock) {}
        #expect(try ProcessLock.database(.postgresql(url: "postgresql://localhost/roost")) == nil)
    }
}
