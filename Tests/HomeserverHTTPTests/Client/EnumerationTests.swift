import MatrixCore
import NIOHTTP1
import RoostTestSupport
import Testing

@testable import Homeserver
@testable import HomeserverHTTP

@Suite("A22: what strangers can find out")
struct EnumerationTests {
    private let base = "/_matrix/client/v3"

    @Test("A22: a private room looks to strangers like one that doesn't exist")
    func rooms() async throws {
        let client = ClientSession(try await TestServer())
        let alice = await client.register("alice"), eve = await client.register("eve")
        let room =
            await client.ask(
                .POST, "\(base)/createRoom", alice, ["preset": "private_chat", "name": "Secret"]
            ).json["room_id"]?.stringValue ?? ""
        let event =
            await client.ask(
                .PUT, "\(base)/rooms/\(room)/send/m.room.message/1", alice, ["body": "x"]
            ).json["event_id"]?.stringValue ?? ""
        var compared = 0
        for path in [
            "state", "state/m.room.name", "members", "joined_members", "messages?dir=b", "event/\(event)",
            "context/\(event)", "aliases",
        ] {
            func ask(_ room: String) async -> ClientSession.Answer {
                await client.ask(.GET, "\(base)/rooms/\(room)/\(path)", eve)
            }
            let there = await ask(room), nowhere = await ask("!nowhere:localhost")
            #expect(there.status == nowhere.status && there.json == nowhere.json, "\(path): \(there.summary)")
            #expect(there.status >= 400)
            compared += 1
        }
        #expect(compared == 8)
        let listed = await client.ask(.GET, "\(base)/publicRooms", eve)
        #expect(listed.json["chunk"] == [])
        await client.server.close()
    }

    @Test("A22: who has gone looks like somebody who never was")
    func profiles() async throws {
        let client = ClientSession(try await TestServer())
        let alice = await client.register("gone")
        _ = await client.ask(.PUT, "\(base)/profile/@gone:localhost/displayname", alice, ["displayname": "Gone"])
        _ = try await client.server.homeserver.deactivation.deactivate("gone")
        for path in ["", "/displayname", "/avatar_url", "/m.tz"] {
            let gone = await client.ask(.GET, "\(base)/profile/@gone:localhost\(path)")
            let never = await client.ask(.GET, "\(base)/profile/@none:localhost\(path)")
            #expect(gone.status == 404 && never.status == 404)
            let text = String(decoding: gone.bytes, as: UTF8.self)
            #expect(text.replacing("@gone", with: "@none") == String(decoding: never.bytes, as: UTF8.self))
        }
        await client.server.close()
    }

    @Test("A22: signing in answers alike for every account that it doesn't let in")
    func logins() async throws {
        let client = ClientSession(try await TestServer())
        for name in ["alice", "gone", "locked"] { _ = await client.register(name) }
        let accounts = client.server.homeserver.accounts
        _ = try await client.server.homeserver.deactivation.deactivate("gone")
        let boss = try await client.server.user("boss")
        try await accounts.set(.locked, true, of: try #require(UserID("@locked:localhost")), by: boss)
        var answers: Set<String> = []
        for (user, password) in [
            ("alice", "guess"), ("nobody", "guess"), ("gone", "secret"), ("gone", "guess"), ("locked", "guess"),
            ("@alice:elsewhere", "secret"), ("@", "x"), ("alice", String(repeating: "x", count: 100_000)),
        ] {
            let answer = await client.ask(
                .POST, "\(base)/login", nil,
                [
                    "type": "m.login.password", "identifier": ["type": "m.id.user", "user": .string(user)],
                    "password": .string(password),
                ])
            answers.insert(answer.summary)
        }
        #expect(answers.count == 1)
        for identifier: JSON in [
            ["type": "m.id.thirdparty", "medium": "email", "address": "alice@example.org"],
            ["type": "m.id.phone", "country": "GB", "phone": "07700900001"],
        ] {
            let answer = await client.ask(
                .POST, "\(base)/login", nil,
                ["type": "m.login.password", "identifier": identifier, "password": "secret"])
            #expect(answers.contains(answer.summary))
        }
        await client.server.close()
    }
}
