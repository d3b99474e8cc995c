import Database
import RoostTestSupport
import Testing

@testable import Homeserver

@Suite("Refresh tokens", .onEachEngine)
struct RefreshTokenTests {
    private func logIn(_ server: TestServer) async throws -> AccountService.Session {
        try await server.homeserver.accounts.logIn(
            user: "alice", password: "alice", deviceID: "PHONE", displayName: nil, refreshes: true)
    }

    private func code(_ session: AccountService.Session, _ server: TestServer) async -> MatrixError? {
        do {
            _ = try await server.homeserver.accounts.tokens.requester(for: session.accessToken)
            return nil
        } catch { return error as? MatrixError }
    }

    private func refresh(_ session: AccountService.Session, _ server: TestServer) async throws -> AccountService.Session
    {
        try await server.homeserver.accounts.refresh(session.refreshToken ?? "")
    }

    private func refusal(_ session: AccountService.Session, _ server: TestServer) async -> MatrixError? {
        do {
            _ = try await refresh(session, server)
            return nil
        } catch { return error as? MatrixError }
    }

    @Test("an access token that can be renewed expires softly, and its refresh token gives the next one")
    func expiry() async throws {
        let server = try await TestServer()
        _ = try await server.user("alice")
        let first = try await logIn(server)
        #expect(first.expiresInMS == 3_600_000 && first.refreshToken != nil)
        #expect(await code(first, server) == nil)
        server.clock.advance(by: 3_600_000)
        let expired = await code(first, server)
        #expect(expired?.code == .unknownToken && expired?.extra["soft_logout"] == true)
        let second = try await refresh(first, server)
        #expect(second.deviceID == "PHONE" && second.userID.string == "@alice:localhost")
        #expect(Set([first.accessToken, second.accessToken, first.refreshToken, second.refreshToken]).count == 4)
        #expect(await code(second, server) == nil)
        await server.close()
    }

    @Test("sessions that can't be renewed don't expire")
    func others() async throws {
        let server = try await TestServer()
        _ = try await server.user("alice")
        let session = try await server.homeserver.accounts.logIn(
            user: "alice", password: "alice", deviceID: nil, displayName: nil)
        #expect(session.refreshToken == nil && session.expiresInMS == nil)
        server.clock.advance(by: 1_000 * 86_400_000)
        #expect(await code(session, server) == nil)
        await server.close()
    }

    @Test("a refresh whose answer was lost can be made again, until its access token is used")
    func repeated() async throws {
        let server = try await TestServer()
        _ = try await server.user("alice")
        let first = try await logIn(server)
        let lost = try await refresh(first, server)
        let again = try await refresh(first, server)
        // What was lost is void.
        #expect(await code(lost, server)?.code == .unknownToken)
        #expect(await refusal(lost, server)?.code == .unknownToken)
        // The old access token goes on until the new one is used.
        #expect(await code(first, server) == nil)
        #expect(await code(again, server) == nil)
        #expect(await code(first, server)?.code == .unknownToken)
        await server.close()
    }

    @Test("using the new refresh token spends the old one too")
    func spentByRefresh() async throws {
        let server = try await TestServer()
        _ = try await server.user("alice")
        let first = try await logIn(server)
        let second = try await refresh(first, server)
        let third = try await refresh(second, server)
        #expect(await code(third, server) == nil)
        #expect(await code(first, server)?.code == .unknownToken)
        await server.close()
    }

    @Test("A28: a refresh token that is used again after it was spent ends all tokens of the device, softly")
    func theft() async throws {
        let server = try await TestServer()
        _ = try await server.user("alice")
        let stolen = try await logIn(server)
        let second = try await refresh(stolen, server)
        #expect(await code(second, server) == nil)
        let third = try await refresh(second, server)
        let refused = await refusal(stolen, server)
        #expect(refused?.code == .unknownToken && refused?.extra["soft_logout"] == true)
        for session in [stolen, second, third] {
            #expect(await code(session, server)?.code == .unknownToken)
            #expect(await refusal(session, server)?.code == .unknownToken)
        }
        // The device is there for whoever knows the password.
        let requester = try await server.homeserver.accounts.tokens.requester(
            for: try await logIn(server).accessToken)
        #expect(requester.deviceID == "PHONE")
        await server.close()
    }

    @Test("A28: refresh tokens end with logout, a new login of the device, another password and deactivation")
    func ends() async throws {
        let server = try await TestServer()
        let accounts = server.homeserver.accounts
        _ = try await server.user("alice")
        let first = try await logIn(server)
        let second = try await logIn(server)
        #expect(await refusal(first, server)?.code == .unknownToken)
        try await accounts.logOut(try await accounts.tokens.requester(for: second.accessToken))
        #expect(await refusal(second, server)?.code == .unknownToken)
        let third = try await logIn(server)
        _ = try await accounts.setPassword("alice", of: "alice")
        #expect(await refusal(third, server)?.code == .unknownToken)
        let fourth = try await logIn(server)
        try await accounts.logOutAll(try await accounts.tokens.requester(for: fourth.accessToken))
        #expect(await refusal(fourth, server)?.code == .unknownToken)
        let fifth = try await logIn(server)
        _ = try await server.homeserver.deactivation.deactivate("alice")
        #expect(await refusal(fifth, server)?.code == .unknownToken)
        await server.close()
    }

    @Test("many refreshes with one token at once leave one pair that is good")
    func race() async throws {
        let server = try await TestServer()
        _ = try await server.user("alice")
        let first = try await logIn(server)
        let made = try await withThrowingTaskGroup(of: AccountService.Session.self) { group in
            for _ in 0..<8 { group.addTask { try await refresh(first, server) } }
            return try await group.reduce(into: []) { $0.append($1) }
        }
        var good = 0
        for session in made where await code(session, server) == nil { good += 1 }
        #expect(good == 1)
        await server.close()
    }
}
