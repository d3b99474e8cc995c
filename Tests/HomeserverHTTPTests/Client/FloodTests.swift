import MatrixCore
import NIOHTTP1
import RoostTestSupport
import Testing

@testable import Homeserver
@testable import HomeserverHTTP

@Suite("A30: floods")
struct FloodTests {
    private let base = "/_matrix/client/v3"

    private func session() async throws -> ClientSession {
        ClientSession(try await TestServer { $0.rateLimits.enabled = true })
    }

    private func register(_ client: ClientSession, _ name: String, from address: String) async -> ClientSession.Answer {
        await client.ask(
            .POST, "\(base)/register",
            ["username": .string(name), "password": "secret", "auth": ["type": "m.login.dummy"]], from: address)
    }

    private func logIn(
        _ client: ClientSession, _ name: String, _ password: String, from address: String
    ) async -> ClientSession.Answer {
        await client.ask(
            .POST, "\(base)/login",
            [
                "type": "m.login.password", "identifier": ["type": "m.id.user", "user": .string(name)],
                "password": .string(password),
            ], from: address)
    }

    /// How many requests pass before the first that is told to wait, and that it is told for how long.
    private func passed(
        _ most: Int, sourceLocation: SourceLocation = #_sourceLocation,
        _ ask: (Int) async -> ClientSession.Answer
    ) async -> Int {
        for number in 0..<most {
            let answer = await ask(number)
            guard answer.status == 429 else { continue }
            #expect(answer.code == "M_LIMIT_EXCEEDED", sourceLocation: sourceLocation)
            let milliseconds = answer.json["retry_after_ms"]?.integerValue ?? 0
            let seconds = Int64(answer.headers.first(name: "Retry-After") ?? "") ?? 0
            #expect(milliseconds > 0 && seconds == (milliseconds + 999) / 1_000, sourceLocation: sourceLocation)
            return number
        }
        return most
    }

    @Test("A30: registrations are limited for each address, and for the whole of an IPv6 network")
    func registrations() async throws {
        let client = try await session()
        #expect(await passed(30) { await register(client, "a\($0)", from: "192.0.2.1") } == 10)
        #expect(await register(client, "b", from: "192.0.2.2").status == 200)
        #expect(await passed(30) { await register(client, "c\($0)", from: "2001:db8::\($0 + 1)") } == 10)
        #expect(await register(client, "d", from: "2001:db8:0:1::1").status == 200)
        client.server.clock.advance(by: 10_000)
        #expect(await register(client, "e", from: "192.0.2.1").status == 200)
        await client.server.close()
    }

    @Test("A30: logins are limited for each address; guesses at one account also when each comes from elsewhere")
    func logins() async throws {
        let client = try await session()
        for name in ["alice", "bob"] { _ = await register(client, name, from: "198.51.100.1") }
        #expect(await passed(30) { _ in await logIn(client, "alice", "secret", from: "192.0.2.1") } == 10)
        let guesses = await passed(60) { await logIn(client, "alice", "guess", from: "203.0.113.\($0 + 1)") }
        #expect(guesses == 20)
        // The same name in other words is the same account.
        for name in ["ALICE", "@alice:localhost"] {
            #expect(await logIn(client, name, "guess", from: "203.0.113.200").status == 429)
        }
        // Accounts that don't exist are counted alike, so that the limit doesn't tell which do.
        #expect(await passed(60) { await logIn(client, "nobody", "guess", from: "198.18.0.\($0 + 1)") } == 20)
        #expect(await logIn(client, "bob", "secret", from: "203.0.113.201").status == 200)
        client.server.clock.advance(by: 10_000)
        #expect(await logIn(client, "alice", "secret", from: "203.0.113.202").status == 200)
        await client.server.close()
    }

    @Test("A30: guesses at the password behind a session are limited too")
    func confirmation() async throws {
        let client = try await session()
        let token = await register(client, "alice", from: "198.51.100.1").json["access_token"]?.stringValue
        let passed = await passed(60) { _ in
            await client.ask(
                .DELETE, "\(base)/devices/X", token,
                ["auth": ["type": "m.login.password", "user": "alice", "password": "guess"]])
        }
        #expect(passed == 20)
        await client.server.close()
    }

    @Test("A30: joins, invites and reports are limited for each account")
    func rooms() async throws {
        let client = try await session()
        let alice = await register(client, "alice", from: "198.51.100.1").json["access_token"]?.stringValue
        let bob = await register(client, "bob", from: "198.51.100.2").json["access_token"]?.stringValue
        let room =
            await client.ask(
                .POST, "\(base)/createRoom", alice, ["preset": "public_chat"]
            ).json["room_id"]?.stringValue ?? ""
        #expect(await passed(100) { _ in await client.ask(.POST, "\(base)/join/\(room)", bob, [:]) } == 30)
        // Not for anybody else, and not for anything else.
        #expect(await client.ask(.POST, "\(base)/join/\(room)", alice, [:]).status == 200)
        #expect(await client.ask(.GET, "\(base)/joined_rooms", bob).status == 200)
        let invite: JSON = ["user_id": "@nobody:localhost"]
        #expect(
            await passed(200) { _ in await client.ask(.POST, "\(base)/rooms/\(room)/invite", alice, invite) } == 60)
        #expect(
            await passed(200) { _ in await client.ask(.POST, "\(base)/rooms/\(room)/report", bob, ["reason": ""]) }
                == 20)
        await client.server.close()
    }

    @Test("A30: a person who does a lot in a minute never meets a limit")
    func person() async throws {
        let client = try await session()
        let home = "192.0.2.7"
        let tokens = [
            await register(client, "alice", from: home).json["access_token"]?.stringValue,
            await register(client, "bob", from: home).json["access_token"]?.stringValue,
        ]
        var statuses: [Int] = []
        // Two mistyped passwords on each of three devices.
        for _ in 0..<2 {
            for password in ["Secret", "secrte", "secret"] {
                statuses.append(await logIn(client, "alice", password, from: home).status)
            }
        }
        #expect(statuses.allSatisfy { $0 == 200 || $0 == 403 })
        var rooms: [String] = []
        for _ in 0..<10 {
            let made = await client.ask(
                .POST, "\(base)/createRoom", tokens[0], ["preset": "public_chat", "invite": ["@bob:localhost"]])
            rooms.append(made.json["room_id"]?.stringValue ?? "")
            statuses.append(made.status)
        }
        for room in rooms {
            statuses.append(await client.ask(.POST, "\(base)/join/\(room)", tokens[1], [:]).status)
            for number in 0..<6 {
                let path = "\(base)/rooms/\(room)/send/m.room.message/\(number)"
                statuses.append(await client.ask(.PUT, path, tokens[1], ["body": "hello"]).status)
            }
            statuses.append(await client.ask(.GET, "\(base)/rooms/\(room)/messages?dir=b", tokens[1]).status)
            statuses.append(await client.ask(.GET, "\(base)/sync", tokens[1]).status)
        }
        #expect(!statuses.contains(429))
        await client.server.close()
    }

    @Test("an application service makes as many users as its bridge has")
    func ghosts() async throws {
        let pattern = try #require(NamespacePattern("@_irc_.*"))
        let registration = AppserviceRegistration(
            id: "irc", asToken: "speaks", hsToken: "hears", senderLocalpart: "_irc_bot",
            users: [.init(isExclusive: true, pattern: pattern)])
        let client = ClientSession(
            try await TestServer {
                $0.rateLimits.enabled = true
                $0.appservices = [registration]
            })
        func register(_ number: Int, _ token: String) async -> ClientSession.Answer {
            await client.ask(
                .POST, "\(base)/register", token: token,
                ["type": "m.login.application_service", "username": .string("_irc_\(number)"), "inhibit_login": true],
                from: "203.0.113.7")
        }
        #expect(await passed(40) { await register($0, "speaks") } == 40)
        #expect(await passed(40) { await register($0, "guessed") } < 40)
        await client.server.close()
    }
}
