import MatrixCore
import RoostTestSupport
import Testing

@testable import Homeserver

@Suite("User-interactive authentication", .onEachEngine)
struct InteractiveAuthenticationTests {
    private static let terms = Configuration.Registration.Terms(
        policy: "tos", version: "1.2", language: "en", name: "Terms", url: "https://example.org/terms")

    private func server() async throws -> TestServer {
        let server = try await TestServer {
            $0.registration.mode = .token
            $0.registration.terms = [Self.terms]
        }
        _ = try await server.homeserver.accounts.createRegistrationToken("let-me-in", usesAllowed: 3, expiresTS: nil)
        return server
    }

    private func json(_ value: JSON) throws -> JSONView { try JSONDocument(parsing: value.encoded()).root }

    private func register(
        _ server: TestServer, _ auth: JSON?, name: String = "alice"
    ) async throws -> AccountService.RegistrationOutcome {
        try await server.homeserver.accounts.register(
            .init(username: name, password: "secret", deviceID: nil, displayName: nil, inhibitLogin: true),
            auth: try auth.map(json))
    }

    private func challenge(_ outcome: AccountService.RegistrationOutcome) throws -> JSON {
        guard case .challenge(let body) = outcome else { throw MatrixError.forbidden("registered") }
        return .object(body)
    }

    @Test("stages are completed in their order, each once, and the documents are named")
    func order() async throws {
        let server = try await server()
        let first = try challenge(try await register(server, nil))
        #expect(first["flows"] == [["stages": ["m.login.registration_token", "m.login.terms"]]])
        #expect(
            first["params"] == [
                "m.login.terms": [
                    "policies": [
                        "tos": ["version": "1.2", "en": ["name": "Terms", "url": "https://example.org/terms"]]
                    ]
                ]
            ])
        let session = first["session"] ?? .null
        let early = try challenge(try await register(server, ["type": "m.login.terms", "session": session]))
        #expect(early["errcode"] == "M_FORBIDDEN" && early["completed"] == nil)
        let wrong = try challenge(
            try await register(server, ["type": "m.login.registration_token", "token": "guess", "session": session]))
        #expect(wrong["errcode"] == "M_UNAUTHORIZED" && wrong["completed"] == nil)
        let second = try challenge(
            try await register(
                server, ["type": "m.login.registration_token", "token": "let-me-in", "session": session]))
        #expect(second["completed"] == ["m.login.registration_token"] && second["errcode"] == nil)
        // What is completed stays so, whatever is tried on it.
        let again = try challenge(
            try await register(server, ["type": "m.login.registration_token", "token": "guess", "session": session]))
        #expect(again["completed"] == ["m.login.registration_token"] && again["errcode"] == nil)
        guard
            case .registered(let user, nil) = try await register(server, ["type": "m.login.terms", "session": session])
        else {
            Issue.record("not registered")
            return
        }
        let account = try #require(try await server.homeserver.database.account(of: user))
        let accepted = try await server.homeserver.database.acceptedPolicies(of: account.nid)
        #expect(accepted.map(\.policy) == ["tos"] && accepted.map(\.version) == ["1.2"])
        await server.close()
    }

    @Test("A28: stages of one session count for no other, and a session counts for one operation, once")
    func sessions() async throws {
        let server = try await server()
        let mine = try challenge(try await register(server, nil))["session"] ?? .null
        let other = try challenge(try await register(server, nil, name: "bob"))["session"] ?? .null
        _ = try await register(
            server, ["type": "m.login.registration_token", "token": "let-me-in", "session": mine])
        let refused = try challenge(try await register(server, ["type": "m.login.terms", "session": other]))
        #expect(refused["completed"] == nil)
        // Of a registration nothing can be spent on an account, and the other way round.
        let alice = try await server.user("carol")
        for session in [mine, "made up", ""] {
            let error = await #expect(throws: MatrixError.self) {
                try await server.homeserver.devices.deactivate(
                    erases: false, auth: try json(["session": session]), of: alice)
            }
            #expect(error?.status == 400)
        }
        guard
            case .challenge(let body) = try await server.homeserver.devices.deactivate(
                erases: false, auth: nil, of: alice)
        else {
            Issue.record("deactivated without authentication")
            return
        }
        await #expect(throws: MatrixError.self) { try await register(server, ["session": body["session"] ?? .null]) }
        // Another user's session for the same thing is none.
        let bob = try await server.user("bob")
        await #expect(throws: MatrixError.self) {
            try await server.homeserver.devices.deactivate(
                erases: false, auth: try json(["session": body["session"] ?? .null]), of: bob)
        }
        server.clock.advance(by: InteractiveAuthentication.lifetime)
        await #expect(throws: MatrixError.self) {
            try await register(server, ["type": "m.login.terms", "session": mine])
        }
        await server.close()
    }

    @Test("stages completed on pages count as those completed by the client")
    func fallback() async throws {
        let server = try await server()
        let accounts = server.homeserver.accounts
        let session = try challenge(try await register(server, nil))["session"]?.stringValue ?? ""
        await #expect(throws: MatrixError.self) {
            try await accounts.fallbackStage("m.login.terms", session: session)
        }
        let wrong = try await accounts.completeFallbackStage(
            "m.login.registration_token", session: session, entered: "guess")
        #expect(!wrong.isCompleted)
        let right = try await accounts.completeFallbackStage(
            "m.login.registration_token", session: session, entered: "let-me-in")
        #expect(right.isCompleted)
        let halfway = try challenge(try await register(server, ["session": .string(session)]))
        #expect(halfway["completed"] == ["m.login.registration_token"])
        #expect(try await accounts.completeFallbackStage("m.login.terms", session: session, entered: "").isCompleted)
        guard case .registered = try await register(server, ["session": .string(session)]) else {
            Issue.record("not registered")
            return
        }
        for stage in ["m.login.dummy", "m.login.terms", "m.login.sso", "x"] {
            await #expect(throws: MatrixError.self) { try await accounts.fallbackStage(stage, session: session) }
        }
        await server.close()
    }

    @Test("on the page it is the password of the session's user that counts")
    func fallbackPassword() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        _ = try await server.user("bob")
        let devices = server.homeserver.devices
        guard case .challenge(let body) = try await devices.delete(["X"], auth: nil, of: alice) else {
            Issue.record("deleted without authentication")
            return
        }
        let session = body["session"]?.stringValue ?? ""
        let accounts = server.homeserver.accounts
        #expect(
            try await accounts.fallbackStage("m.login.password", session: session).user == alice.userID)
        for wrong in ["bob", "", "alice\0"] {
            let stage = try await accounts.completeFallbackStage("m.login.password", session: session, entered: wrong)
            #expect(!stage.isCompleted)
        }
        guard
            case .challenge = try await devices.delete(["X"], auth: try json(["session": .string(session)]), of: alice)
        else {
            Issue.record("deleted without authentication")
            return
        }
        _ = try await accounts.completeFallbackStage("m.login.password", session: session, entered: "alice")
        guard case .done = try await devices.delete(["X"], auth: try json(["session": .string(session)]), of: alice)
        else {
            Issue.record("not deleted")
            return
        }
        await server.close()
    }
}
