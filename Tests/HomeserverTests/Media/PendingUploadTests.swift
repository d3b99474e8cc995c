import RoostTestSupport
import Testing

@testable import Homeserver

@Suite("Media IDs that get their content later", .onEachEngine)
struct PendingUploadTests {
    private func create(_ server: TestServer, by user: Requester) async throws -> String {
        String(try await server.homeserver.media.create(by: user).uri.split(separator: "/").last!)
    }

    private func download(_ mediaID: String, wait: Int64 = 0, _ server: TestServer) async throws -> [UInt8] {
        let file = try await server.homeserver.media.download(
            .init(server: "localhost", mediaID: mediaID, wait: wait))
        return try fileBytes(file.path)
    }

    private func code(_ work: () async throws -> Void) async -> MatrixError.Code? {
        do {
            try await work()
            return nil
        } catch { return (error as? MatrixError)?.code }
    }

    private func check(_ mediaID: String, _ server: TestServer, by user: Requester) async -> MatrixError.Code? {
        await code {
            try await server.homeserver.media.checkPending(server: "localhost", mediaID: mediaID, by: user)
        }
    }

    @Test("the content is not there until it is uploaded, once, by whoever asked for the ID")
    func life() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let mediaID = try await create(server, by: alice)
        #expect(await code { _ = try await download(mediaID, server) } == .notYetUploaded)
        #expect(await check(mediaID, server, by: bob) == .forbidden)
        #expect(await check("nobodys", server, by: alice) == .notFound)
        #expect(await check("../x", server, by: alice) == .notFound)
        #expect(await check(mediaID, server, by: alice) == nil)
        try await server.upload([1, 2, 3], by: alice, pending: mediaID)
        #expect(try await download(mediaID, server) == [1, 2, 3])
        #expect(await check(mediaID, server, by: alice) == .cannotOverwriteMedia)
        #expect(
            await code { try await server.upload([4], by: alice, pending: mediaID) } == .cannotOverwriteMedia)
        #expect(try await download(mediaID, server) == [1, 2, 3])
        await server.close()
    }

    @Test("a download that waits gets the content when it comes, without asking again")
    func waiting() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        let mediaID = try await create(server, by: alice)
        async let content = download(mediaID, wait: 20_000, server)
        while server.clock.timers == 0 { await Task.yield() }
        try await server.upload([7], by: alice, pending: mediaID)
        #expect(try await content == [7])
        await server.close()
    }

    @Test("a download that waits is told when its time is up")
    func timeout() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        let mediaID = try await create(server, by: alice)
        async let outcome = code { _ = try await download(mediaID, wait: .max, server) }
        while server.clock.timers == 0 { await Task.yield() }
        // No client makes the server wait longer than a minute.
        server.clock.advance(by: 60_000)
        #expect(await outcome == .notYetUploaded)
        await server.close()
    }

    @Test("an ID without content is over after a day")
    func expiry() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        let expires = try await server.homeserver.media.create(by: alice).expiresTS
        #expect(expires == server.clock.now + 86_400_000)
        let mediaID = try await create(server, by: alice)
        server.clock.advance(by: 86_400_000)
        #expect(await code { _ = try await download(mediaID, server) } == .notFound)
        #expect(await check(mediaID, server, by: alice) == .notFound)
        #expect(await code { try await server.upload([1], by: alice, pending: mediaID) } == .cannotOverwriteMedia)
        await server.close()
    }

    @Test("nobody has more than so many uploads pending")
    func most() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        var last = ""
        for _ in 0..<MediaService.mostPending { last = try await create(server, by: alice) }
        #expect(await code { _ = try await create(server, by: alice) } == .limitExceeded)
        _ = try await create(server, by: bob)
        try await server.upload([1], by: alice, pending: last)
        _ = try await create(server, by: alice)
        #expect(await code { _ = try await create(server, by: alice) } == .limitExceeded)
        server.clock.advance(by: 86_400_000)
        _ = try await create(server, by: alice)
        await server.close()
    }

    @Test("only what was uploaded before the freeze is served without an access token")
    func freeze() async throws {
        for (before, isServed) in [(nil, false), (1_700_000_000_000, false), (1_700_000_000_001, true)]
            as [(Int64?, Bool)]
        {
            let server = try await TestServer { $0.media.unauthenticatedBefore = before }
            let alice = try await server.user("alice")
            let mediaID = try await server.upload([1], by: alice)
            let outcome = await code {
                _ = try await server.homeserver.media.download(
                    .init(server: "localhost", mediaID: mediaID, isUnauthenticated: true))
            }
            #expect(outcome == (isServed ? nil : .notFound))
            await server.close()
        }
    }
}
