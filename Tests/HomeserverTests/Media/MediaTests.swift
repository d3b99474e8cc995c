import RoostTestSupport
import Testing

@testable import Homeserver

@Suite("Media", .onEachEngine)
struct MediaTests {
    private func upload(_ bytes: [UInt8], _ server: TestServer, by user: Requester) async throws -> String {
        try await server.upload(bytes, type: "text/plain", name: "a.txt", by: user)
    }

    @Test("what was uploaded comes back, and the same content is stored once")
    func roundTrip() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        let bytes = (0..<5_000).map { UInt8(truncatingIfNeeded: $0 * 7) }
        let first = try await upload(bytes, server, by: alice), second = try await upload(bytes, server, by: alice)
        #expect(first != second)
        let one = try await server.homeserver.media.download(.init(server: "localhost", mediaID: first))
        let two = try await server.homeserver.media.download(.init(server: "localhost", mediaID: second))
        #expect(one.path == two.path && one.size == 5_000 && one.fileName == "a.txt")
        #expect(try fileBytes(one.path) == bytes)
        await server.close()
    }

    @Test("uploads are bounded, and what is refused leaves nothing behind")
    func bounded() async throws {
        let server = try await TestServer { $0.media.maxUploadSize = 2_500 }
        let alice = try await server.user("alice")
        _ = try await upload([UInt8](repeating: 1, count: 2_500), server, by: alice)
        let error = await #expect(throws: MatrixError.self) {
            try await upload([UInt8](repeating: 2, count: 2_501), server, by: alice)
        }
        #expect(error?.code == .tooLarge)
        await server.close()
    }

    @Test(
        "A25: no media ID leads out of the store",
        arguments: [
            "../../etc/passwd", "..", "", "/etc/passwd", "a/../../b", "%2e%2e", "a\0b",
        ])
    func traversal(mediaID: String) async throws {
        let server = try await TestServer()
        let error = await #expect(throws: MatrixError.self) {
            try await server.homeserver.media.download(.init(server: "localhost", mediaID: mediaID))
        }
        #expect(error?.code == .notFound)
        await server.close()
    }
}
