import Crypto
import MatrixCore
import RoostTestSupport
import Testing

@testable import Homeserver

@Suite("Accounts", .onEachEngine)
struct AccountTests {
    private func registration(_ name: String?) -> AccountService.RegistrationRequest {
        .init(username: name, password: "a password", deviceID: nil, displayName: nil, inhibitLogin: false)
    }

    private func json(_ text: String) throws -> JSONView { try JSONDocument(parsing: Array(text.utf8)).root }

    private func challenge(_ outcome: AccountService.RegistrationOutcome) throws -> JSONObject {
        guard case .challenge(let body) = outcome else {
            throw MatrixError.forbidden("registered without authentication")
        }
        return body
    }

    @Test("registration is closed unless it is opened")
    func closed() async throws {
        let server = try await TestServer { $0.registration.mode = .closed }
        let error = await #expect(throws: MatrixError.self) {
            try await server.homeserver.accounts.register(registration("alice"), auth: nil)
        }
        #expect(error?.code == .forbidden)
        await server.close()
    }

    @Test("open registration takes the dummy stage, in a session or without one")
    func open() async throws {
        let server = try await TestServer()
        let accounts = server.homeserver.accounts
        let body = try challenge(try await accounts.register(registration("alice"), auth: nil))
        let session = try #require(body["session"]?.stringValue)
        #expect(body["flows"] == [["stages": ["m.login.dummy"]]])
        let auth = try json(#"{"type":"m.login.dummy","session":"\#(session)"}"#)
        guard case .registered(let user, let begun?) = try await accounts.register(registration("alice"), auth: auth)
        else {
            Issue.record("not registered")
            return
        }
        #expect(user.string == "@alice:localhost")
        #expect(try await accounts.tokens.requester(for: begun.accessToken).userID == user)
        // The session is spent.
        await #expect(throws: MatrixError.self) { try await accounts.register(registration("bob"), auth: auth) }
        guard
            case .registered = try await accounts.register(
                registration("carol"), auth: try json(#"{"type":"m.login.dummy"}"#))
        else {
            Issue.record("not registered")
            return
        }
        await server.close()
    }

    @Test("a registration token lets in as many as it allows, until it expires")
    func tokens() async throws {
        let server = try await TestServer { $0.registration.mode = .token }
        let accounts = server.homeserver.accounts
        _ = try await accounts.createRegistrationToken("twice", usesAllowed: 2, expiresTS: nil)
        _ = try await accounts.createRegistrationToken(
            "soon-over", usesAllowed: nil, expiresTS: server.clock.now + 1_000)
        func attempt(_ name: String, _ token: String) async throws -> Bool {
            let auth = try json(#"{"type":"m.login.registration_token","token":"\#(token)"}"#)
            if case .registered = try await accounts.register(registration(name), auth: auth) { return true }
            return false
        }
        #expect(try await attempt("a", "unknown") == false)
        #expect(try await attempt("a", "twice"))
        #expect(try await attempt("b", "twice"))
        #expect(try await attempt("c", "twice") == false)
        #expect(try await accounts.isValidRegistrationToken("twice") == false)
        #expect(try await attempt("c", "soon-over"))
        server.clock.advance(by: 1_000)
        #expect(try await attempt("d", "soon-over") == false)
        await server.close()
    }

    @Test(
        "names that are taken or not allowed are refused",
        arguments: [
            ("alice", "M_USER_IN_USE"), ("ALICE", "M_USER_IN_USE"), ("ä", "M_INVALID_USERNAME"),
            ("", "M_INVALID_USERNAME"),
            ("a b", "M_INVALID_USERNAME"), (String(repeating: "a", count: 250), "M_INVALID_USERNAME"),
        ])
    func names(name: String, code: String) async throws {
        let server = try await TestServer()
        _ = try await server.user("alice")
        let error = await #expect(throws: MatrixError.self) {
            try await server.homeserver.accounts.checkAvailable(name)
        }
        #expect(error?.code.name == code)
        await server.close()
    }

    @Test("many who want one name at once: one gets it")
    func race() async throws {
        let server = try await TestServer()
        let made = await withTaskGroup(of: Bool.self) { group in
            for _ in 0..<8 {
                group.addTask {
                    do {
                        _ = try await server.homeserver.accounts.create(localpart: "one", password: "p", admin: false)
                        return true
                    } catch { return false }
                }
            }
            return await group.reduce(0) { $0 + ($1 ? 1 : 0) }
        }
        #expect(made == 1)
        await server.close()
    }

    @Test("A22: a wrong password and an unknown user get the same answer")
    func wrongPassword() async throws {
        let server = try await TestServer()
        _ = try await server.user("alice")
        var answers: Set<String> = []
        for (user, password) in [("alice", "wrong"), ("nobody", "wrong"), ("@alice:elsewhere", "alice"), ("@:", "x")] {
            let error = await #expect(throws: MatrixError.self) {
                try await server.homeserver.accounts.logIn(
                    user: user, password: password, deviceID: nil, displayName: nil)
            }
            answers.insert(error?.description ?? "")
        }
        #expect(answers.count == 1)
        await server.close()
    }

    @Test("A28: tokens end with logout, a new login of the device, a password set by an operator, and deactivation")
    func endOfTokens() async throws {
        let server = try await TestServer()
        let accounts = server.homeserver.accounts
        _ = try await server.user("alice")
        func session(_ device: String) async throws -> AccountService.Session {
            try await accounts.logIn(user: "alice", password: "alice", deviceID: device, displayName: nil)
        }
        func isValid(_ session: AccountService.Session) async -> Bool {
            do {
                _ = try await accounts.tokens.requester(for: session.accessToken)
                return true
            } catch { return false }
        }
        let first = try await session("PHONE")
        #expect(await isValid(first))
        let second = try await session("PHONE")
        #expect(await !isValid(first))
        let laptop = try await session("LAPTOP")
        try await accounts.logOut(try await accounts.tokens.requester(for: second.accessToken))
        #expect(await !isValid(second))
        #expect(await isValid(laptop))
        _ = try await accounts.setPassword("other", of: "alice")
        #expect(await !isValid(laptop))
        let again = try await accounts.logIn(user: "alice", password: "other", deviceID: nil, displayName: nil)
        _ = try await server.homeserver.deactivation.deactivate("alice")
        #expect(await !isValid(again))
        await #expect(throws: MatrixError.self) {
            try await accounts.logIn(user: "alice", password: "other", deviceID: nil, displayName: nil)
        }
        await #expect(throws: MatrixError.self) { try await accounts.checkAvailable("alice") }
        await server.close()
    }

    @Test("A29: neither password nor access token is in the database")
    func secretsAreHashed() async throws {
        let server = try await TestServer()
        _ = try await server.homeserver.accounts.create(localpart: "alice", password: "swordfish-9000", admin: false)
        let session = try await server.homeserver.accounts.logIn(
            user: "alice", password: "swordfish-9000", deviceID: nil, displayName: nil)
        let copy = "\(server.directory.path)/copy.db"
        try await server.homeserver.database.engine.copy(to: copy)
        await server.close()
        let bytes = try fileBytes(copy)
        #expect(bytes.count > 10_000)
        #expect(!contains(bytes, "swordfish-9000"))
        #expect(!contains(bytes, session.accessToken))
        #expect(contains(bytes, "$argon2id$"))
    }

    @Test("the shared secret registers once per nonce, and only with the right code")
    func sharedSecret() async throws {
        let server = try await TestServer { $0.registration.sharedSecret = "the secret" }
        let accounts = server.homeserver.accounts
        func code(_ nonce: String, _ admin: String = "notadmin", secret: String = "the secret") -> String {
            let key = SymmetricKey(data: Array(secret.utf8))
            let message = Array("\(nonce)\0eve\0pw\0\(admin)".utf8)
            return Hex.encode(HMAC<Insecure.SHA1>.authenticationCode(for: message, using: key))
        }
        func register(_ nonce: String, _ mac: String, admin: Bool = false) async throws {
            _ = try await accounts.registerBySharedSecret(
                nonce: nonce, username: "eve", password: "pw", admin: admin, userType: nil, mac: mac)
        }
        let wrongs: [(String) -> (String, Bool)] = [
            { (code($0, secret: "another"), false) }, { (code($0), true) }, { _ in ("zz", false) },
            { _ in ("", false) },
        ]
        for wrong in wrongs {
            let nonce = try accounts.makeNonce()
            let (mac, admin) = wrong(nonce)
            await #expect(throws: MatrixError.self) { try await register(nonce, mac, admin: admin) }
            // Spent by the attempt.
            await #expect(throws: MatrixError.self) { try await register(nonce, code(nonce)) }
        }
        let late = try accounts.makeNonce()
        server.clock.advance(by: 61_000)
        await #expect(throws: MatrixError.self) { try await register(late, code(late)) }
        let nonce = try accounts.makeNonce()
        try await register(nonce, code(nonce))
        await server.close()
    }

    @Test("a database belongs to one server name for ever")
    func serverName() async throws {
        let directory = TemporaryDirectory()
        let first = try await TestServer(directory: directory)
        await first.close()
        let error = await #expect(throws: (any Error).self) {
            try await TestServer(directory: directory) { $0.serverName = ServerName("other.example")! }
        }
        #expect("\(error!)".contains("localhost"))
    }

    @Test("A30: attempts to log in are limited for each account and address")
    func limits() async throws {
        let server = try await TestServer { $0.rateLimits.enabled = true }
        let limiter = server.homeserver.rateLimits
        for _ in 0..<10 { try limiter.take(.login, for: "1.2.3.4") }
        let error = #expect(throws: MatrixError.self) { try limiter.take(.login, for: "1.2.3.4") }
        #expect(error?.code == .limitExceeded && error?.retryAfterMS == 5_000)
        try limiter.take(.login, for: "5.6.7.8")
        server.clock.advance(by: 5_000)
        try limiter.take(.login, for: "1.2.3.4")
        #expect(throws: MatrixError.self) { try limiter.take(.login, for: "1.2.3.4") }
        await server.close()
    }
}
