import MatrixCore
import NIOHTTP1
import RoostTestSupport
import Testing

@testable import Homeserver
@testable import HomeserverHTTP

@Suite("Interactive authentication in a browser")
struct FallbackPageTests {
    private let base = "/_matrix/client/v3"

    private func page(_ stage: String, _ session: String) -> String {
        "\(base)/auth/\(stage)/fallback/web?session=\(GeneratedInputScene.encoded(session))"
    }

    private func submit(
        _ client: ClientSession, _ stage: String, _ session: String, _ entered: String
    ) async -> ClientSession.Answer {
        let form = "session=\(GeneratedInputScene.encoded(session))&entered=\(GeneratedInputScene.encoded(entered))"
        return await client.ask(
            .POST, "\(base)/auth/\(stage)/fallback/web", raw: Array(form.utf8),
            headers: [("Content-Type", "application/x-www-form-urlencoded")])
    }

    private func html(_ answer: ClientSession.Answer) -> String { String(decoding: answer.bytes, as: UTF8.self) }

    private func expectSafe(_ answer: ClientSession.Answer, sourceLocation: SourceLocation = #_sourceLocation) {
        #expect(answer.headers["Content-Type"] == ["text/html; charset=utf-8"], sourceLocation: sourceLocation)
        let policy = answer.headers["Content-Security-Policy"].joined()
        for part in [
            "default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'",
            "script-src 'sha256-",
        ] {
            #expect(policy.contains(part), "\(part)", sourceLocation: sourceLocation)
        }
        #expect(!policy.contains("unsafe-inline"), sourceLocation: sourceLocation)
        #expect(answer.headers["X-Frame-Options"] == ["DENY"], sourceLocation: sourceLocation)
        #expect(answer.headers["X-Content-Type-Options"] == ["nosniff"], sourceLocation: sourceLocation)
        #expect(answer.headers["Referrer-Policy"] == ["no-referrer"], sourceLocation: sourceLocation)
        #expect(answer.headers["Cache-Control"] == ["no-store"], sourceLocation: sourceLocation)
    }

    @Test("a token is entered, documents are accepted, and the client goes on with the session alone")
    func registration() async throws {
        let terms = Configuration.Registration.Terms(
            policy: "tos", version: "1", language: "en", name: "Terms & <Conditions>", url: "https://example.org/?a&b")
        let client = ClientSession(
            try await TestServer {
                $0.registration.mode = .token
                $0.registration.terms = [terms]
            })
        _ = try await client.server.homeserver.accounts.createRegistrationToken(
            "let-me-in", usesAllowed: 1, expiresTS: nil)
        let wanted: JSON = ["username": "alice", "password": "secret"]
        let session = await client.ask(.POST, "\(base)/register", nil, wanted).json["session"]?.stringValue ?? ""
        let token = "m.login.registration_token"
        let form = await client.ask(.GET, page(token, session))
        expectSafe(form)
        #expect(form.status == 200 && html(form).contains("<form method=\"post\">") && html(form).contains(session))
        // Not before it is due.
        #expect(await client.ask(.GET, page("m.login.terms", session)).status == 404)
        let wrong = await submit(client, token, session, "guess")
        expectSafe(wrong)
        #expect(html(wrong).contains("unknown, used up or expired") && !html(wrong).contains("guess"))
        let done = await submit(client, token, session, "let-me-in")
        expectSafe(done)
        #expect(html(done).contains("window.onAuthDone()") && html(done).contains("authDone"))
        let documents = await client.ask(.GET, page("m.login.terms", session))
        #expect(html(documents).contains("Terms &amp; &lt;Conditions&gt;"))
        #expect(html(documents).contains("https://example.org/?a&amp;b"))
        _ = await submit(client, "m.login.terms", session, "")
        var finished = wanted
        finished["auth"] = ["session": .string(session)]
        let registered = await client.ask(.POST, "\(base)/register", nil, finished)
        #expect(registered.status == 200 && registered.json["user_id"] == "@alice:localhost")
        #expect(await client.ask(.GET, page(token, session)).status == 404)
        await client.server.close()
    }

    @Test("A26: nothing of the address becomes part of the page as it is")
    func injection() async throws {
        let client = ClientSession(try await TestServer())
        let evil = "\"><script>alert(1)</script>"
        for answer in [
            await client.ask(.GET, page("m.login.dummy", evil)),
            await client.ask(.GET, page(GeneratedInputScene.encoded(evil), evil)),
            await submit(client, "m.login.dummy", evil, evil), await client.ask(.GET, "\(base)/auth/x/fallback/web"),
        ] {
            #expect(answer.status == 404 || answer.status == 400)
            #expect(!html(answer).contains("<script>alert"))
            expectSafe(answer)
        }
        await client.server.close()
    }

    @Test("A28: the page takes the password of the session's user, and of nobody else")
    func password() async throws {
        let client = ClientSession(try await TestServer())
        let alice = await client.register("alice")
        _ = await client.ask(
            .POST, "\(base)/register", nil,
            ["username": "bob", "password": "another", "auth": ["type": "m.login.dummy"]])
        let device = await client.ask(.GET, "\(base)/account/whoami", alice).json["device_id"]?.stringValue ?? ""
        let path = "\(base)/devices/\(device)"
        let session = await client.ask(.DELETE, path, alice, [:]).json["session"]?.stringValue ?? ""
        #expect(html(await client.ask(.GET, page("m.login.password", session))).contains("@alice:localhost"))
        #expect(html(await submit(client, "m.login.password", session, "another")).contains("The password is wrong."))
        let auth: JSON = ["auth": ["session": .string(session)]]
        #expect(await client.ask(.DELETE, path, alice, auth).status == 401)
        #expect(html(await submit(client, "m.login.password", session, "secret")).contains("authDone"))
        #expect(await client.ask(.DELETE, path, alice, auth).status == 200)
        await client.server.close()
    }
}
