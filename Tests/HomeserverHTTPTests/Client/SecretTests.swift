import Foundation
import Logging
import MatrixCore
import NIOHTTP1
import RoostTestSupport
import Synchronization
import Testing

@testable import Homeserver
@testable import HomeserverHTTP

/// A log that keeps every line, with all that is attached to it.
private final class KeptLog: LogHandler, Sendable {
    private let kept = Mutex("")
    var logLevel: Logger.Level {
        get { .trace }
        set {}
    }
    var metadata: Logger.Metadata {
        get { [:] }
        set {}
    }
    var text: String { kept.withLock { $0 } }

    subscript(metadataKey _: String) -> Logger.Metadata.Value? {
        get { nil }
        set {}
    }

    func log(event: LogEvent) {
        kept.withLock { $0 += "\(event.level) \(event.message) \(event.metadata ?? [:])\n" }
    }

    func log(
        level: Logger.Level, message: Logger.Message, metadata: Logger.Metadata?, source: String, file: String,
        function: String, line: UInt
    ) {
        kept.withLock { $0 += "\(level) \(message) \(metadata ?? [:])\n" }
    }
}

@Suite("A29: secrets stay where they belong")
struct SecretTests {
    private let base = "/_matrix/client/v3"

    @Test(
        "A29: no password and no token is in the log, in what is answered to somebody else, or in the database's files")
    func everywhere() async throws {
        let log = KeptLog()
        let logger = Logger(label: "test") { _ in log }
        let registration = AppserviceRegistration(
            id: "irc", asToken: "as-token-4711", hsToken: "hs-token-4711", senderLocalpart: "_bot")
        let server = try await TestServer(logger: logger) {
            $0.registration.sharedSecret = "shared-secret-4711"
            $0.turn.sharedSecret = "turn-secret-4711"
            $0.appservices = [registration]
        }
        let client = ClientSession(server, logger: logger)
        var secrets = [
            "password-4711", "password-4712", "guess-4711", "as-token-4711", "hs-token-4711", "shared-secret-4711",
            "turn-secret-4711", "unknown-token-4711", "unknown-refresh-4711",
        ]
        var refusals = ""
        func ask(
            _ method: HTTPMethod, _ path: String, _ token: String? = nil, _ body: JSON? = nil
        ) async -> ClientSession.Answer {
            let answer = await client.ask(method, path, token: token, body)
            if answer.status >= 400, answer.json["flows"] == nil {
                refusals += String(decoding: answer.bytes, as: UTF8.self) + "\n"
            }
            return answer
        }
        func remember(_ answer: ClientSession.Answer, _ keys: String...) {
            for key in keys {
                if let secret = answer.json[key]?.stringValue {
                    secrets.append(secret)
                } else {
                    Issue.record("no \(key)")
                }
            }
        }
        func credentials(_ password: String) -> JSON {
            [
                "type": "m.login.password", "identifier": ["type": "m.id.user", "user": "alice"],
                "password": .string(password), "refresh_token": true,
            ]
        }
        let registered = await ask(
            .POST, "\(base)/register", nil,
            [
                "username": "alice", "password": "password-4711", "refresh_token": true,
                "auth": ["type": "m.login.dummy"],
            ])
        remember(registered, "access_token", "refresh_token")
        let login = await ask(.POST, "\(base)/login", nil, credentials("password-4711"))
        remember(login, "access_token", "refresh_token")
        let token = login.json["access_token"]?.stringValue ?? ""
        let refreshed = await ask(
            .POST, "\(base)/refresh", nil, ["refresh_token": registered.json["refresh_token"] ?? .null])
        remember(refreshed, "access_token", "refresh_token")
        // In the query too, where old clients have it; refused, accepted and malformed.
        _ = await ask(.GET, "\(base)/account/whoami?access_token=\(token)")
        _ = await ask(.GET, "\(base)/account/whoami?acces%73_token=\(token)")
        _ = await ask(.GET, "\(base)/account/whoami?access_token=unknown-token-4711")
        _ = await ask(.GET, "\(base)/nowhere?access_token=\(token)")
        _ = await ask(.DELETE, "\(base)/login?access_token=\(token)")
        _ = await ask(.GET, "\(base)/account/whoami", "as-token-4711")
        _ = await ask(.GET, "\(base)/account/whoami?user_id=@alice:localhost", "as-token-4711")
        for body: JSON in [
            credentials("guess-4711"), ["type": "m.login.token", "token": "unknown-token-4711"],
            ["type": "password-4711"], ["type": "m.login.password", "password": ["password-4711"]],
        ] { _ = await ask(.POST, "\(base)/login", nil, body) }
        _ = await ask(.POST, "\(base)/refresh", nil, ["refresh_token": "unknown-refresh-4711"])
        let change: JSON = ["new_password": "password-4712"]
        let challenge = await ask(.POST, "\(base)/account/password", token, change)
        remember(challenge, "session")
        for password in ["guess-4711", "password-4711"] {
            var body = change
            body["auth"] = credentials(password)
            body["auth"]?["session"] = challenge.json["session"]
            _ = await ask(.POST, "\(base)/account/password", token, body)
        }
        let loginToken = await ask(
            .POST, "/_matrix/client/v1/login/get_token", token, ["auth": credentials("password-4712")])
        remember(loginToken, "login_token")
        remember(
            await ask(.POST, "\(base)/user/@alice:localhost/openid/request_token", token, [:]), "access_token")
        let page = await ask(.DELETE, "\(base)/devices/X", token, [:])
        remember(page, "session")
        _ = await ask(
            .GET, "\(base)/auth/m.login.password/fallback/web?session=\(page.json["session"]?.stringValue ?? "")")

        let copy = "\(server.directory.path)/copy.db"
        try await server.homeserver.database.engine.copy(to: copy)
        var files = Data()
        for name in ["copy.db", "roost.db", "roost.db-wal"] {
            files += (try? Data(contentsOf: URL(fileURLWithPath: "\(server.directory.path)/\(name)"))) ?? Data()
        }
        await server.close()
        // What is searched is where it would be: the log, the database and the refusals hold something.
        #expect(log.text.contains("/account/whoami") && refusals.contains("M_UNKNOWN_TOKEN"))
        #expect(files.range(of: Data("$argon2id$".utf8)) != nil)
        #expect(secrets.count > 18)
        // The way to sign in that the client made up, which is no secret to the server, is repeated to the client alone.
        let repeated = refusals.replacing("“password-4711” is not a way", with: "")
        for secret in secrets {
            #expect(!log.text.contains(secret), "\(secret) is in the log")
            #expect(!repeated.contains(secret), "\(secret) is in an answer")
            #expect(files.range(of: Data(secret.utf8)) == nil, "\(secret) is in the database")
        }
    }
}
