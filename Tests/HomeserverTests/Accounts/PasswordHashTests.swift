import Database
import RoostTestSupport
import Testing

@testable import Homeserver

@Suite("Password hashes")
struct PasswordHashTests {
    private static let hash = "$2b$04$abcdefghijklmnopqrstuugIEnm3ZbWF6xb2GcoE3L1CoGJFMKtu."

    @Test(
        "bcrypt hashes of other servers are verified",
        arguments: [
            ("swordfish", hash), ("swordfish", hash.replacing("$2b$", with: "$2a$")),
            ("schön", "$2y$04$abcdefghijklmnopqrstuuSwG6ioJjPB8SaBmj.asbxU5PaSko1H2"),
        ])
    func bcrypt(password: String, hash: String) {
        #expect(PasswordHash.verify(password, hash))
        for wrong in ["Swordfish", "", password + "x", password + "\0", password + "\0x"] {
            #expect(!PasswordHash.verify(wrong, hash), "\(wrong)")
        }
    }

    @Test(
        "what is no hash of a known kind fits no password",
        arguments: ["", "swordfish", "$1$abcdefgh$1iPoYJ0T0QHQjO3ZzN0Ew1", "$2b$04$short", "*", "$5$x$y", "$argon2id$"])
    func others(hash: String) {
        for password in ["swordfish", "", hash] { #expect(!PasswordHash.verify(password, hash)) }
    }

    @Test("an account from elsewhere signs in with its old hash, which then becomes one of ours", .onEachEngine)
    func renewed() async throws {
        let server = try await TestServer()
        let accounts = server.homeserver.accounts
        let alice = try await server.user("alice")
        var write = Write()
        write.setPasswordHash(Self.hash, of: alice.nid)
        try await server.homeserver.database.write(write)
        await #expect(throws: MatrixError.self) {
            try await accounts.logIn(user: "alice", password: "guess", deviceID: nil, displayName: nil)
        }
        #expect(try await server.homeserver.database.account(alice.nid)?.passwordHash == Self.hash)
        for _ in 0..<2 {
            _ = try await accounts.logIn(user: "alice", password: "swordfish", deviceID: nil, displayName: nil)
            let now = try await server.homeserver.database.account(alice.nid)?.passwordHash
            #expect(now?.hasPrefix("$argon2id$") == true)
        }
        await server.close()
    }
}
