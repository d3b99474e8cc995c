import Homeserver
import MatrixCore
import RoostTestSupport
import Synchronization
import Testing

@testable import Database
@testable import Homeserver

@Suite("Files of other servers")
struct RemoteMediaTests {
    private static let bytes = (0..<300_000).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) }
    private static let evil = "evil.example"

    private func content(_ file: MediaService.Download) throws -> [UInt8] {
        try #require(Files.read(file.path, limit: 1 << 20))
    }

    private func arriving(on server: TestServer) -> [String] {
        Files.names(in: "\(server.configuration.media.path)/incoming")
    }

    private func files(on server: TestServer) -> Int {
        let media = server.configuration.media.path
        return Files.names(in: media).filter { $0 != "incoming" }.reduce(0) {
            $0 + Files.names(in: "\(media)/\($1)").count
        }
    }

    /// Has a server that is none of ours answer downloads.
    private func forge(
        _ scene: FederationScene, _ answer: @escaping @Sendable (_ target: String) -> ServerResponse?
    ) {
        scene.network.forge { request in
            guard request.destination.string == Self.evil else { return nil }
            return answer(request.target) ?? ServerResponse(status: 404, body: Array("{}".utf8))
        }
    }

    private func multipart(_ parts: String, boundary: String = "b") -> ServerResponse {
        ServerResponse(
            status: 200, headers: [("Content-Type", "multipart/mixed; boundary=\(boundary)")],
            body: Array(parts.utf8))
    }

    private func reference(_ mediaID: String) -> MediaService.Reference { .init(server: Self.evil, mediaID: mediaID) }

    @Test("a file comes as it was uploaded, with type and name, and is fetched once however many want it")
    func fetchedOnce() async throws {
        let scene = try await FederationScene(2)
        let alice = try await scene[0].user("alice")
        let id = try await scene[0].upload(Self.bytes, type: "image/png", name: "büro.png", by: alice)
        let media = scene[1].homeserver.media
        let wanted = MediaService.Reference(server: "hs1.example", mediaID: id)
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<5 {
                group.addTask {
                    let file = try await media.download(wanted)
                    #expect(try self.content(file) == Self.bytes)
                    #expect(file.contentType == "image/png" && file.fileName == "büro.png")
                }
            }
            try await group.waitForAll()
        }
        _ = try await media.download(wanted)
        #expect(scene.network.exchanges.filter { $0.target.contains("/media/download/") }.count == 1)
        #expect(arriving(on: scene[1]).isEmpty)
        await scene.close()
    }

    @Test("the end of a file is found wherever the network cuts it, and what looks like it isn't taken for it")
    func delimiters() throws {
        let file = "x\r\n--b\r\n--\r\n\r--b-y\r\n"
        let answer = Array("--b\r\n\r\n{}\r\n--b\r\nContent-Type: text/plain\r\n\r\n\(file)\r\n--b--\r\nmore".utf8)
        for size in [1, 2, 3, 7, answer.count] {
            var media = try #require(MultipartMedia(contentType: "multipart/mixed; boundary=\"b\""))
            var found: [UInt8] = []
            for start in stride(from: 0, to: answer.count, by: size) {
                try Array(answer[start..<min(start + size, answer.count)]).withUnsafeBytes {
                    try media.take($0) { found += $0 }
                }
            }
            #expect(String(decoding: found, as: UTF8.self) == file && media.isComplete)
            #expect(media.contentType == "text/plain")
        }
    }

    @Test("a file that is larger than allowed is not taken, and leaves nothing behind")
    func bounded() async throws {
        let scene = try await FederationScene(2, configure: { $0.media.maxRemoteSize = 299_999 })
        let alice = try await scene[0].user("alice")
        let id = try await scene[0].upload(Self.bytes, by: alice)
        let error = await #expect(throws: MatrixError.self) {
            try await scene[1].homeserver.media.download(.init(server: "hs1.example", mediaID: id))
        }
        #expect(error?.code == .tooLarge)
        #expect(arriving(on: scene[1]).isEmpty && files(on: scene[1]) == 0)
        await scene.close()
    }

    @Test(
        "what is no whole file is none, and leaves nothing behind",
        arguments: [
            "", "--b\r\n\r\n{}\r\n--b\r\n\r\ncut off", "--b\r\n\r\n{}\r\n--b--\r\n",
            String(repeating: "x", count: 100_000),
        ])
    func broken(body: String) async throws {
        let scene = try await FederationScene(1)
        forge(scene) { $0.contains("/federation/") ? self.multipart(body) : nil }
        let error = await #expect(throws: MatrixError.self) {
            try await scene[0].homeserver.media.download(reference("abc"))
        }
        #expect(error?.status == 502)
        #expect(arriving(on: scene[0]).isEmpty && files(on: scene[0]) == 0)
        await scene.close()
    }

    @Test("a file that lies elsewhere is fetched from there, and one of an old server from where it lies")
    func elsewhere() async throws {
        let scene = try await FederationScene(1)
        let place = "https://cdn.example/file"
        scene.network.put(
            ServerResponse(status: 200, headers: [("Content-Type", "text/plain")], body: Array("far".utf8)), at: place)
        forge(scene) { target in
            if target.contains("/federation/v1/media/download/far") {
                return self.multipart("--b\r\n\r\n{}\r\n--b\r\nLocation: \(place)\r\n\r\n\r\n--b--\r\n")
            }
            guard target.hasPrefix("/_matrix/media/v3/download/evil.example/old?") else { return nil }
            return ServerResponse(status: 200, headers: [("Content-Type", "image/gif")], body: Array("old".utf8))
        }
        let media = scene[0].homeserver.media
        let far = try await media.download(reference("far")), old = try await media.download(reference("old"))
        #expect(try content(far) == Array("far".utf8) && far.contentType == "text/plain")
        #expect(try content(old) == Array("old".utf8) && old.contentType == "image/gif")
        let error = await #expect(throws: MatrixError.self) { try await media.download(reference("none")) }
        #expect(error?.code == .notFound)
        await scene.close()
    }

    @Test("one limit of time holds for a fetch, wherever it leads")
    func timed() async throws {
        let timeouts = Mutex<[Int64]>([])
        let clock = Mutex<ManualSurroundings?>(nil)
        let scene = try await FederationScene(1)
        clock.withLock { $0 = scene[0].clock }
        scene.network.forge { request in
            guard request.destination.string == Self.evil else { return nil }
            timeouts.withLock { $0.append(request.timeout) }
            // The answer takes its time.
            clock.withLock { $0 }?.advance(by: 70_000)
            return ServerResponse(status: 404, body: Array(#"{"errcode": "M_UNRECOGNIZED"}"#.utf8))
        }
        _ = await #expect(throws: MatrixError.self) { try await scene[0].homeserver.media.download(reference("slow")) }
        #expect(timeouts.withLock { $0 } == [120_000, 50_000])
        await scene.close()
    }

    @Test("purged files are gone from the disk but for what is somebody's here, and come back when they are wanted")
    func purged() async throws {
        let scene = try await FederationScene(2)
        let alice = try await scene[0].user("alice"), bob = try await scene[1].user("bob")
        let first = try await scene[0].upload(Self.bytes, by: alice)
        let shared = try await scene[0].upload(Array("both have it".utf8), by: alice)
        let home = scene[1].homeserver
        for id in [first, shared] { _ = try await home.media.download(.init(server: "hs1.example", mediaID: id)) }
        let own = try await scene[1].upload(Array("both have it".utf8), by: bob)
        #expect(files(on: scene[1]) == 2)
        // What has just come stays: whoever fetches it may not have named it yet.
        #expect(try await home.mediaPurging.purge(fetchedBefore: scene[1].clock.now + 1).files == 0)
        scene[1].clock.advance(by: 2 * 3_600_000)
        #expect(try await home.mediaPurging.purge(fetchedBefore: scene[1].clock.now) == .init(files: 2, bytes: 300_000))
        #expect(files(on: scene[1]) == 1)
        let kept = try await home.media.download(.init(server: "hs2.example", mediaID: own))
        #expect(try content(kept) == Array("both have it".utf8))
        let again = try await home.media.download(.init(server: "hs1.example", mediaID: first))
        #expect(try content(again) == Self.bytes)
        await scene.close()
    }

    @Test("old files of others go by themselves where that is configured; content that came anew stays")
    func aged() async throws {
        let scene = try await FederationScene(2, configure: { $0.media.keepRemote = 86_400 })
        let alice = try await scene[0].user("alice")
        let id = try await scene[0].upload(Self.bytes, by: alice)
        let other = try await scene[0].upload(Array("later".utf8), by: alice)
        let media = scene[1].homeserver.media
        _ = try await media.download(.init(server: "hs1.example", mediaID: id))
        scene[1].clock.advance(by: 80_000_000)
        _ = try await media.download(.init(server: "hs1.example", mediaID: other))
        try await scene.eventually("the older one goes") {
            scene[1].clock.advance(by: 600_000)
            return files(on: scene[1]) == 1
        }
        await scene.close()
    }
}
