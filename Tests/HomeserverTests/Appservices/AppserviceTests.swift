import Database
import MatrixCore
import RoostTestSupport
import Testing

@testable import Homeserver

@Suite("Application services", .onEachEngine)
struct AppserviceTests {
    static func registration(
        _ id: String, users: String, aliases: String = "#nothing", isRateLimited: Bool = true
    ) throws -> AppserviceRegistration {
        AppserviceRegistration(
            id: id, asToken: "\(id) speaks", hsToken: "\(id) hears", senderLocalpart: "_\(id)_bot",
            isRateLimited: isRateLimited,
            users: [.init(isExclusive: true, pattern: try #require(NamespacePattern(users)))],
            aliases: [.init(isExclusive: true, pattern: try #require(NamespacePattern(aliases)))])
    }

    private func server() async throws -> TestServer {
        let irc = try Self.registration("irc", users: "@_irc_.*", aliases: "#_irc_.*", isRateLimited: false)
        let xmpp = try Self.registration("xmpp", users: "@_xmpp_[a-z]+:localhost$")
        return try await TestServer { $0.appservices = [irc, xmpp] }
    }

    private func code(_ work: () async throws -> Void) async -> MatrixError.Code? {
        do {
            try await work()
            return nil
        } catch { return (error as? MatrixError)?.code }
    }

    private func request(_ name: String?, inhibitLogin: Bool = true) -> AccountService.RegistrationRequest {
        .init(username: name, password: nil, deviceID: nil, displayName: nil, inhibitLogin: inhibitLogin)
    }

    @Test("patterns match from the beginning, and are POSIX's")
    func patterns() throws {
        for (pattern, text, matches) in [
            ("@_irc_.*", "@_irc_x:localhost", true), ("@_irc_.*", "x@_irc_x:localhost", false),
            ("@_irc", "@_irc_x:localhost", true), ("@a\\.b:.*", "@a.b:x", true), ("@a\\.b:.*", "@aXb:x", false),
            ("@(?:a|b)_\\d+:x$", "@b_12:x", true), ("@(?:a|b)_\\d+:x$", "@b_12:xy", false), ("@a|@b", "@b:x", true),
            ("", "anything", true),
        ] {
            #expect(try #require(NamespacePattern(pattern)).matches(text) == matches, "\(pattern) \(text)")
        }
        for wrong in ["(", "[", "a{2,1}", "*)("] { #expect(NamespacePattern(wrong) == nil, "\(wrong)") }
    }

    @Test("an application service speaks for its sender and its users, and for nobody else")
    func speaker() async throws {
        let server = try await server()
        let accounts = server.homeserver.accounts, appservices = server.homeserver.appservices
        _ = try await server.user("alice")
        let bot = try #require(try await appservices.speaker(for: "irc speaks", user: nil, device: nil))
        #expect(bot.requester.userID.string == "@_irc_bot:localhost" && bot.isUnlimited)
        #expect(bot.requester.appservice == "irc" && bot.requester.deviceID.isEmpty)
        _ = try await accounts.register(request("_irc_bob"), byAppservice: "irc speaks")
        let bob = try #require(
            try await appservices.speaker(for: "irc speaks", user: "@_irc_bob:localhost", device: nil))
        #expect(bob.requester.userID.string == "@_irc_bob:localhost")
        for user in [
            "@alice:localhost", "@_irc_unknown:localhost", "@_xmpp_bot:localhost", "@_irc_bob:elsewhere", "nonsense",
            "",
        ] {
            #expect(
                await code { _ = try await appservices.speaker(for: "irc speaks", user: user, device: nil) }
                    == .forbidden, "\(user)")
        }
        #expect(
            await code {
                _ = try await appservices.speaker(for: "irc speaks", user: "@_irc_bob:localhost", device: "X")
            } == .unknownDevice)
        try await server.homeserver.devices.put("X", name: "Bridge", of: bob.requester)
        let device = try await appservices.speaker(for: "irc speaks", user: "@_irc_bob:localhost", device: "X")
        #expect(device?.requester.deviceID == "X")
        // Devices of its users end without further ado.
        guard case .done = try await server.homeserver.devices.delete(["X"], auth: nil, of: bob.requester) else {
            Issue.record("asked for more authentication")
            return
        }
        for token in ["irc", "irc hears", "", "irc speaks "] {
            #expect(try await appservices.speaker(for: token, user: nil, device: nil) == nil)
        }
        #expect(await code { _ = try await accounts.tokens.requester(for: "irc speaks") } == .unknownToken)
        await server.close()
    }

    @Test("exclusive names are their service's alone, and a service makes no others")
    func exclusive() async throws {
        let server = try await server()
        let accounts = server.homeserver.accounts
        for name in ["_irc_x", "_IRC_x", "_irc_bot", "_xmpp_abc"] {
            #expect(await code { try await accounts.checkAvailable(name) } == .exclusive, "\(name)")
        }
        #expect(await code { try await accounts.checkAvailable("_xmpp_123") } == nil)
        for (name, token, expected) in [
            ("alice", "irc speaks", MatrixError.Code.exclusive), ("_irc_x", "xmpp speaks", .exclusive),
            ("_irc_bot", "irc speaks", .userInUse), ("_irc_x", "nobody's", .unknownToken),
            ("_irc_x", "irc hears", .unknownToken), ("_irc_ä", "irc speaks", .invalidUsername),
        ] {
            #expect(
                await code { _ = try await accounts.register(request(name), byAppservice: token) } == expected,
                "\(name)")
        }
        let (user, session) = try await accounts.register(
            request("_irc_x", inhibitLogin: false), byAppservice: "irc speaks")
        #expect(user.string == "@_irc_x:localhost" && session != nil)
        func logIn(_ user: String, _ token: String) async -> MatrixError.Code? {
            await code { _ = try await accounts.logIn(user: user, byAppservice: token, .init()) }
        }
        _ = try await server.user("alice")
        #expect(await logIn("_irc_x", "irc speaks") == nil)
        #expect(await logIn("@_irc_x:localhost", "irc speaks") == nil)
        #expect(await logIn("_irc_x", "xmpp speaks") == .exclusive)
        #expect(await logIn("alice", "irc speaks") == .exclusive)
        #expect(await logIn("_irc_nobody", "irc speaks") == .forbidden)
        #expect(await logIn("_irc_x", "nothing") == .unknownToken)
        // Nobody signs in to it with a password, an empty one least of all.
        for password in ["", "x"] {
            #expect(
                await code {
                    _ = try await accounts.logIn(user: "_irc_x", password: password, deviceID: nil, displayName: nil)
                } == .forbidden)
        }
        await server.close()
    }

    @Test("aliases of a service are made and removed by it alone; a time that it gives becomes the event's")
    func aliasesAndTime() async throws {
        let server = try await server()
        let directory = server.homeserver.directory
        let alice = try await server.user("alice")
        let bot = try #require(
            try await server.homeserver.appservices.speaker(for: "irc speaks", user: nil, device: nil)
        ).requester
        let other = try #require(
            try await server.homeserver.appservices.speaker(for: "xmpp speaks", user: nil, device: nil)
        ).requester
        let room = try await server.room(of: alice)
        for user in [bot, other] { try await server.homeserver.memberships.join(room, reason: nil, by: user) }
        let own = try #require(RoomAlias("#_irc_a:localhost")), plain = try #require(RoomAlias("#a:localhost"))
        #expect(await code { try await directory.create(own, for: room, by: alice) } == .exclusive)
        #expect(await code { try await directory.create(own, for: room, by: other) } == .exclusive)
        #expect(await code { try await directory.create(plain, for: room, by: bot) } == .exclusive)
        #expect(await code { _ = try await server.room(of: alice) { $0.aliasName = "_irc_b" } } == .exclusive)
        try await directory.create(own, for: room, by: bot)
        #expect(await code { try await directory.delete(own, by: alice) } == .exclusive)
        try await directory.delete(own, by: bot)

        let event = try await server.homeserver.sending.send(
            "m.room.message", content: ["body": "old"], to: room, transactionID: "1", timestamp: 1_000_000, by: bot)
        #expect(try await server.homeserver.database.event(event)?.originServerTS == 1_000_000)
        await server.close()
    }

    @Test("a sender that can't be a user is told at the start")
    func badSender() async throws {
        let wrong = AppserviceRegistration(id: "x", asToken: "a", hsToken: "b", senderLocalpart: "not a name")
        let error = await #expect(throws: DatabaseError.self) { try await TestServer { $0.appservices = [wrong] } }
        #expect("\(error!)".contains("not a name"))
    }

    @Test("an application service lists rooms for its networks, apart from the server's own list")
    func networks() async throws {
        let server = try await server()
        let alice = try await server.user("alice")
        let room = try await server.room(of: alice)
        let bot = try #require(
            try await server.homeserver.appservices.speaker(for: "irc speaks", user: nil, device: nil)
        ).requester
        let directory = server.homeserver.directory
        func listed(_ lists: PublishedLists) async throws -> Int {
            try await directory.publishedRooms(
                .init(limit: nil, since: nil, searchTerm: nil, roomTypes: nil, lists: lists))["chunk"]?.arrayValue?
                .count ?? -1
        }
        try await directory.setPublished(true, room, network: "net", by: bot)
        #expect(try await listed(.own) == 0)
        #expect(try await listed(.all) == 1)
        #expect(try await listed(.network("net", of: "irc")) == 1)
        #expect(try await listed(.network("net", of: "xmpp")) == 0)
        #expect(await code { try await directory.setPublished(true, room, network: "net", by: alice) } == .forbidden)
        try await directory.setPublished(false, room, network: "net", by: bot)
        #expect(try await listed(.all) == 0)
        #expect(server.homeserver.appservices.pingFailure("irc", by: bot).code == .urlNotSet)
        #expect(server.homeserver.appservices.pingFailure("xmpp", by: bot).code == .forbidden)
        #expect(server.homeserver.appservices.pingFailure("irc", by: alice).code == .forbidden)
        await server.close()
    }
}
