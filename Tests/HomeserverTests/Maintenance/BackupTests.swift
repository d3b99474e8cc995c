import Database
import Dispatch
import Glibc
import Logging
import MatrixCore
import RoostTestSupport
import Testing

@testable import Homeserver

@Suite("Backups")
struct BackupTests {
    private let backups = TemporaryDirectory()
    private let place = TemporaryDirectory()

    private func makeBackup(_ change: (TestServer) throws -> Void = { _ in }) async throws -> Backup.Summary {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        try await server.say("hello", in: try await server.room(of: alice), by: alice)
        for text in ["one", "two"] {
            let upload = try server.homeserver.media.beginUpload()
            try Array(text.utf8).withUnsafeBytes { try upload.write($0) }
            _ = try await upload.finish(contentType: nil, fileName: nil, by: alice)
        }
        try change(server)
        let summary = try await server.homeserver.maintenance.backUp(to: "\(backups.path)/backup")
        await server.close()
        return summary
    }

    private func restore(media: String? = nil) async throws -> Backup.Summary {
        try await Backup.restore(
            from: "\(backups.path)/backup", serverName: ServerName("localhost")!,
            to: .sqlite(path: "\(place.path)/roost.db"), mediaPath: media ?? "\(place.path)/media", scratch: place.path,
            surroundings: ManualSurroundings(seed: 77).surroundings, logger: .init(label: "t"))
    }

    private func store(_ path: String) throws -> BlobStore { try BlobStore(directory: path) }

    @Test(
        "what is left beside a database that was moved away isn't taken for part of the restored one",
        arguments: ["-wal", "-shm", "-journal"])
    func leftovers(suffix: String) async throws {
        _ = try await makeBackup()
        try Files.write([1, 2, 3], to: "\(place.path)/roost.db\(suffix)")
        let problem = await #expect(throws: Backup.Problem.self) { try await restore() }
        #expect(problem?.description.contains("roost.db\(suffix) is left") == true)
        #expect(!Files.exists("\(place.path)/roost.db"))
        Files.remove("\(place.path)/roost.db\(suffix)")
        #expect(try await restore().events > 0)
    }

    @Test("a backup of which a part stayed in its log isn't restored without it")
    func unfinishedBackup() async throws {
        _ = try await makeBackup()
        try Files.write([1, 2, 3], to: "\(backups.path)/backup/roost.db-wal")
        await #expect(throws: Backup.Problem.self) { try await restore() }
        #expect(!Files.exists("\(place.path)/roost.db"))
    }

    @Test("a media file that is missing doesn't hinder a backup, and is told of")
    func missingMedia() async throws {
        let summary = try await makeBackup { server in
            let media = "\(server.directory.path)/media"
            for folder in Files.names(in: media) where folder != "incoming" {
                for name in Files.names(in: "\(media)/\(folder)") { Files.remove("\(media)/\(folder)/\(name)") }
                break
            }
        }
        #expect(summary.mediaFiles == 1 && summary.missingMedia == 1)
        let restored = try await restore()
        #expect(restored.mediaFiles == 1 && restored.missingMedia == 1)
    }

    @Test("what an interrupted copy of a file to another file system has left isn't taken for the file")
    func interruptedCopy() throws {
        // Another file system than that of temporary files, where there is one: within one a file gets a second name.
        let other = "/dev/shm/roost-\(getpid())-copy"
        defer { TemporaryDirectory.removeTree(other) }
        guard (try? Files.makeDirectories(other)) != nil else { return }
        let (from, to) = (try store("\(place.path)/from"), try store("\(other)/to"))
        let bytes = Array("all of it".utf8), hash = Hashing.sha256(bytes)
        try Files.makeDirectories(Files.parent(of: from.path(of: hash)))
        try Files.write(bytes, to: from.path(of: hash))
        try Files.write([1], to: "\(to.directory)/incoming/\(Hex.encode(hash)).copy")
        #expect(try to.take(hash, from: from))
        #expect(Files.read(to.path(of: hash)) == bytes)
        #expect(try !to.take(Hashing.sha256([7]), from: from))
    }

    @Test("half-written uploads go at the start, but not those that another node may be writing")
    func halfWritten() throws {
        let store = try store("\(place.path)/media")
        try Files.write([1], to: "\(store.directory)/incoming/old")
        try Files.write([1], to: "\(store.directory)/incoming/new")
        var times = [timeval](repeating: timeval(tv_sec: time(nil) - 90_000, tv_usec: 0), count: 2)
        #expect(utimes("\(store.directory)/incoming/old", &times) == 0)
        store.clear(olderThan: 86_400)
        #expect(Files.names(in: "\(store.directory)/incoming") == ["new"])
        store.clear(olderThan: 0)
        #expect(Files.names(in: "\(store.directory)/incoming").isEmpty)
    }

    @Test("what reads all of the database does so on a thread of its own, and stays there")
    func ownThread() async throws {
        let threads = try await OwnThread.run {
            var threads: Set<pthread_t> = [pthread_self()]
            for _ in 0..<50 {
                // Woken by others, as by a database's writer.
                await withCheckedContinuation { continuation in DispatchQueue.global().async { continuation.resume() } }
                threads.insert(pthread_self())
            }
            return threads
        }
        #expect(threads.count == 1)
        await #expect(throws: CancellationError.self) { try await OwnThread.run { throw CancellationError() } }
    }
}
