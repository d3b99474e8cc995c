import RoostTestSupport
import Testing

@testable import Homeserver

@Suite(
    "Sessions of a server of several nodes", .enabled(if: EngineKind.cluster != nil, "ROOST_TEST_POSTGRES is not set"))
struct SharedSessionTests {
    @Test("a session that ends on a node that has just come is over on the one that was alone when that is said")
    func ended() async throws {
        try await EngineKind.onPostgreSQL {
            let directory = TemporaryDirectory()
            let first = try await TestServer(directory: directory)
            let accounts = first.homeserver.accounts
            let session = try await accounts.logIn(
                user: try await first.user("alice").userID.string, password: "alice", deviceID: nil, displayName: nil)
            var known: Requester?
            for _ in 0..<6_000 where known == nil {
                _ = try await accounts.tokens.requester(for: session.accessToken)
                known = try accounts.tokens.known(session.accessToken)
                if known == nil { try await Task.sleep(for: .milliseconds(10)) }
            }
            let requester = try #require(known)

            let second = try await TestServer(directory: directory, clock: ManualSurroundings(seed: 2))
            try await second.homeserver.accounts.logOut(requester)
            #expect(try accounts.tokens.known(session.accessToken) == nil)
            await #expect(throws: MatrixError.self) {
                _ = try await accounts.tokens.requester(for: session.accessToken)
            }
            await second.close()
            await first.close()
        }
    }
}
