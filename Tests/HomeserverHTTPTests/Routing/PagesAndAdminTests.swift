import Glibc
import Homeserver
import MatrixCore
import NIOHTTP1
import NIOPosix
import Synchronization
import Testing

@testable import HomeserverHTTP

@Suite struct PagesTests {
    @Test("/health says ok only when the database answers", arguments: Way.allCases)
    func health(_ way: Way) async throws {
        let up = try await way.ask(Router([HealthEndpoint.make { true }]), .GET, "/health")
        #expect(up.status == 200 && up.text.contains("\"ok\""))
        let down = try await way.ask(Router([HealthEndpoint.make { false }]), .GET, "/health")
        #expect(down.status == 503 && !down.text.contains("\"ok\""))
    }

    @Test("A26: the page names the server, loads nothing and can't be framed")
    func landingPage() async throws {
        let name = try #require(ServerName("example.org"))
        let router = Router([LandingPage.make(serverName: name, baseURL: "https://chat.example.org/<&\">")])
        let page = try await Way.memory.ask(router, .GET, "/")
        #expect(page.status == 200)
        #expect(page.text.contains("<h1>example.org</h1>"))
        #expect(page.text.contains("https://chat.example.org/&lt;&amp;&quot;&gt;"))
        let policy = try #require(page.header("Content-Security-Policy"))
        #expect(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"))
        #expect(!policy.contains("unsafe"))
        #expect(!page.text.contains("<script") && !page.text.contains("src=") && !page.text.contains("href="))
        #expect(page.header("X-Content-Type-Options") == "nosniff")
        // The hash in the policy is the one of the style as a browser sees it.
        let style = try #require(page.text.split(separator: "<style>").last?.split(separator: "</style>").first)
        let hash = Base64.encode(Hashing.sha256(Array(style.utf8)))
        #expect(policy.contains("'sha256-\(hash)"))
    }
}

/// An administration that remembers what it was told.
private final class RecordingAdministration: AdminService {
    let calls = Mutex<[String]>([])

    private func record(_ call: String) { calls.withLock { $0.append(call) } }
    private func user(_ name: String) throws -> UserID {
        guard let user = UserID(localpart: name, server: ServerName(unchecked: "example.org")) else {
            throw MatrixError.notFound("There is no \(name).")
        }
        return user
    }

    func createUser(localpart: String, password: String, admin: Bool) async throws -> UserID {
        record("create \(localpart) \(password) \(admin)")
        return try user(localpart)
    }
    func promote(_ user: String) async throws -> UserID {
        record("promote \(user)")
        return try self.user(user)
    }
    func users() async throws -> [AdminUser] {
        [AdminUser(userID: try user("alice"), isAdmin: true, isDeactivated: false, createdTS: 5)]
    }
    func setPassword(_ password: String, of user: String) async throws -> UserID {
        record("password \(user) \(password)")
        return try self.user(user)
    }
    func deactivate(_ user: String) async throws -> UserID {
        record("deactivate \(user)")
        return try self.user(user)
    }
    func createToken(_ token: String?, usesAllowed: Int64?, expiresTS: Int64?) async throws -> AdminToken {
        AdminToken(token: token ?? "made", usesAllowed: usesAllowed, completed: 0, expiresTS: expiresTS)
    }
    func tokens() async throws -> [AdminToken] {
        [AdminToken(token: "one", usesAllowed: nil, completed: 2, expiresTS: nil)]
    }
    func revokeToken(_ token: String) async throws { record("revoke \(token)") }
}

@Suite struct AdminEndpointsTests {
    private let service = RecordingAdministration()
    private var router: Router { Router(AdminEndpoints.all(service, baseURL: "https://example.org")) }

    @Test("the command line's calls reach the service", arguments: Way.allCases)
    func calls(_ way: Way) async throws {
        let prefix = "/_roost/admin/v1"
        let made = try await way.ask(
            router, .POST, prefix + "/users", body: #"{"localpart":"alice","password":"p w","admin":true}"#)
        #expect(made.text == #"{"user_id":"@alice:example.org","homeserver_url":"https://example.org"}"#)
        #expect(try await way.ask(router, .POST, prefix + "/users/bo%2Fb/promote", body: "{}").status == 200)
        #expect(
            try await way.ask(router, .PUT, prefix + "/users/bob/password", body: #"{"password":"x"}"#).status == 200)
        #expect(try await way.ask(router, .POST, prefix + "/users/bob/deactivate", body: "{}").status == 200)
        #expect(try await way.ask(router, .DELETE, prefix + "/tokens/abc").status == 200)
        #expect(
            service.calls.withLock { $0 } == [
                "create alice p w true", "promote bo/b", "password bob x", "deactivate bob", "revoke abc",
            ])
        #expect(try await way.ask(router, .GET, prefix + "/users").text.contains("@alice:example.org"))
        #expect(try await way.ask(router, .POST, prefix + "/tokens", body: "{}").text.contains("made"))
        #expect(try await way.ask(router, .POST, prefix + "/users", body: "{}").text.contains("M_MISSING_PARAM"))
    }

    @Test("A32: they aren't there on a listener for the world")
    func notServed() async throws {
        let world = Endpoint.APIs([.client, .federation, .admin, .health])
        try await withServer(router, served: world) { server in
            let client = try await SocketClient(port: server.port)
            try await client.send("GET /_roost/admin/v1/users HTTP/1.1\r\nHost: a\r\n\r\n")
            #expect(try await client.answer().status == 404)
        }
    }

    @Test("the local socket is for its owner alone, and the client finds the server or nobody")
    func localSocket() async throws {
        var template = Array("/tmp/roost-socket-XXXXXX".utf8CString)
        let directory = try #require(mkdtemp(&template).map { String(cString: $0) })
        let path = directory + "/roost.sock"
        let client = LocalSocketClient(path: path)
        #expect(try await client.send(.GET, "/_roost/admin/v1/users", body: []) == nil)
        let server = try await HTTPServer.start(
            [Listener(.unix(path: path, mode: 0o600), serves: .local)], reply: router.reply)
        var status = stat()
        #expect(stat(path, &status) == 0 && status.st_mode & 0o777 == 0o600)
        let answer = try #require(try await client.send(.GET, "/_roost/admin/v1/users", body: []))
        #expect(answer.status == 200)
        #expect(String(decoding: answer.body, as: UTF8.self).contains("@alice:example.org"))
        await server.shutdown(within: .seconds(5))
        #expect(try await client.send(.GET, "/_roost/admin/v1/users", body: []) == nil)
        rmdir(directory)
    }
}
