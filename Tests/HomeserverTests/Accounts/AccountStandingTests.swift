import Database
import MatrixCore
import RoostTestSupport
import Testing

@testable import Homeserver

@Suite("Accounts that are not like others", .onEachEngine)
struct AccountStandingTests {
    private func code(_ work: () async throws -> Void) async -> MatrixError.Code? {
        do {
            try await work()
            return nil
        } catch { return (error as? MatrixError)?.code }
    }

    private func administrator(_ server: TestServer) async throws -> Requester {
        let boss = try await server.user("boss")
        _ = try await server.homeserver.accounts.setAdmin(true, of: "boss")
        return Requester(nid: boss.nid, userID: boss.userID, deviceID: boss.deviceID, isAdmin: true)
    }

    @Test("A28: a locked account keeps its sessions, and begins no new ones by any way")
    func locked() async throws {
        let server = try await TestServer()
        let accounts = server.homeserver.accounts
        let boss = try await administrator(server), alice = try await server.user("alice")
        let session = try await accounts.logIn(
            user: "alice", password: "alice", deviceID: nil, displayName: nil, refreshes: true)
        var write = Write()
        let loginToken = accounts.makeLoginToken(for: alice.nid, &write)
        try await server.homeserver.database.write(write)
        let openID = try await accounts.makeOpenIDToken(for: alice)
        try await accounts.set(.locked, true, of: alice.userID, by: boss)
        #expect(try await accounts.standing(of: alice.userID) == .locked)
        #expect(try await accounts.tokens.requester(for: session.accessToken).isLocked)
        #expect(
            await code {
                _ = try await accounts.logIn(user: "alice", password: "alice", deviceID: nil, displayName: nil)
            }
                == .userLocked)
        // Whoever doesn't know the password isn't told.
        #expect(
            await code { _ = try await accounts.logIn(user: "alice", password: "x", deviceID: nil, displayName: nil) }
                == .forbidden)
        #expect(await code { _ = try await accounts.logIn(token: loginToken, .init()) } == .userLocked)
        #expect(await code { _ = try await accounts.refresh(session.refreshToken ?? "") } == .userLocked)
        #expect(try await accounts.user(ofOpenIDToken: openID) == nil)
        try await accounts.set(.locked, false, of: alice.userID, by: boss)
        #expect(try await !accounts.tokens.requester(for: session.accessToken).isLocked)
        _ = try await accounts.logIn(token: loginToken, .init())
        #expect(try await accounts.user(ofOpenIDToken: openID) == alice.userID)
        await server.close()
    }

    @Test("locking and suspending don't undo each other")
    func both() async throws {
        let server = try await TestServer()
        let accounts = server.homeserver.accounts
        let boss = try await administrator(server), alice = try await server.user("alice")
        try await accounts.set(.locked, true, of: alice.userID, by: boss)
        try await accounts.set(.suspended, true, of: alice.userID, by: boss)
        #expect(try await accounts.standing(of: alice.userID) == [.locked, .suspended])
        try await accounts.set(.locked, false, of: alice.userID, by: boss)
        try await accounts.set(.locked, false, of: alice.userID, by: boss)
        #expect(try await accounts.standing(of: alice.userID) == .suspended)
        await server.close()
    }

    @Test("administrators can't be locked, nor people of other servers, nor oneself, nor who has gone")
    func whom() async throws {
        let server = try await TestServer()
        let accounts = server.homeserver.accounts
        let boss = try await administrator(server)
        _ = try await server.user("second")
        _ = try await accounts.setAdmin(true, of: "second")
        _ = try await server.user("gone")
        _ = try await server.homeserver.deactivation.deactivate("gone")
        for (user, expected) in [
            ("@second:localhost", MatrixError.Code.forbidden), ("@boss:localhost", .forbidden),
            ("@nobody:localhost", .notFound), ("@gone:localhost", .notFound), ("@a:elsewhere", .invalidParam),
        ] {
            let user = try #require(UserID(user))
            #expect(await code { try await accounts.set(.locked, true, of: user, by: boss) } == expected, "\(user)")
        }
        await server.close()
    }

    @Test("a suspended account sends nothing but redactions of its own messages")
    func suspended() async throws {
        let server = try await TestServer()
        let boss = try await administrator(server), alice = try await server.user("alice")
        let room = try await server.room(of: boss)
        try await server.homeserver.memberships.join(room, reason: nil, by: alice)
        let own = try await server.say("mine", in: room, by: alice),
            other = try await server.say("his", in: room, by: boss)
        let suspended = Requester(
            nid: alice.nid, userID: alice.userID, deviceID: alice.deviceID, standing: .suspended)
        func send(_ type: String, _ content: JSON, _ redacts: EventID? = nil, _ id: String) async -> MatrixError.Code? {
            await code {
                _ = try await server.homeserver.sending.send(
                    type, content: content, to: room, transactionID: id, redacts: redacts, by: suspended)
            }
        }
        #expect(await send("m.room.message", ["body": "hi"], nil, "1") == .userSuspended)
        #expect(await send("m.room.redaction", [:], other, "2") == .userSuspended)
        #expect(await send("m.room.redaction", ["redacts": .string(other.string)], nil, "3") == .userSuspended)
        #expect(await send("m.room.redaction", [:], EventID("$none"), "4") == .userSuspended)
        #expect(await send("m.room.redaction", ["redacts": .string(own.string)], nil, "5") == nil)
        await server.close()
    }

    @Test("guests are made where they are welcome, join where they may, and leave when they may no longer")
    func guests() async throws {
        let closed = try await TestServer()
        #expect(await code { _ = try await closed.homeserver.accounts.registerGuest(.init()) } == .guestAccessForbidden)
        await closed.close()
        let server = try await TestServer { $0.registration.guests = true }
        let accounts = server.homeserver.accounts, memberships = server.homeserver.memberships
        let alice = try await server.user("alice")
        let guest = try await accounts.tokens.requester(for: try await accounts.registerGuest(.init()).accessToken)
        #expect(guest.isGuest)
        let room = try await server.room(of: alice)
        func allow(_ value: String) async throws {
            _ = try await server.homeserver.sending.setState(
                StateKey("m.room.guest_access", ""), content: ["guest_access": .string(value)], in: room, by: alice)
            try await memberships.removeGuests(from: room)
        }
        try await allow("forbidden")
        #expect(await code { try await memberships.join(room, reason: nil, by: guest) } == .guestAccessForbidden)
        try await allow("can_join")
        try await memberships.join(room, reason: nil, by: guest)
        try await server.say("hello", in: room, by: guest)
        let bob = try await server.user("bob")
        try await memberships.join(room, reason: nil, by: bob)
        try await allow("forbidden")
        #expect(await code { try await server.say("again", in: room, by: guest) } == .forbidden)
        try await server.say("still here", in: room, by: bob)
        await server.close()
    }

    @Test("a guest who stays keeps the name and gets a password")
    func upgrade() async throws {
        let server = try await TestServer { $0.registration.guests = true }
        let accounts = server.homeserver.accounts
        _ = try await server.user("alice")
        let session = try await accounts.registerGuest(.init())
        let auth = try JSONDocument(parsing: Array(#"{"type":"m.login.dummy"}"#.utf8)).root
        func stay(_ name: String, _ token: String) async -> MatrixError.Code? {
            await code {
                let outcome = try await accounts.register(
                    .init(
                        username: name, password: "mine now", deviceID: nil, displayName: nil, inhibitLogin: false,
                        guestToken: token), auth: auth)
                guard case .registered(let user, _) = outcome else { throw MatrixError.unknownToken() }
                #expect(user == session.userID)
            }
        }
        let name = String(session.userID.localpart)
        #expect(await stay("alice", session.accessToken) == .forbidden)
        #expect(await stay("other", session.accessToken) == .forbidden)
        #expect(await stay(name, "nobody's") == .unknownToken)
        #expect(await stay(name, session.accessToken) == nil)
        #expect(try await !accounts.tokens.requester(for: session.accessToken).isGuest)
        _ = try await accounts.logIn(user: name, password: "mine now", deviceID: nil, displayName: nil)
        // Once is enough: nobody gets another password that way.
        #expect(await stay(name, session.accessToken) == .forbidden)
        await server.close()
    }

    @Test("a token for one sign-in is good once, for two minutes, and not after logout or another password")
    func loginTokens() async throws {
        let server = try await TestServer()
        let accounts = server.homeserver.accounts
        let alice = try await server.user("alice")
        func make() async throws -> String {
            var write = Write()
            let token = accounts.makeLoginToken(for: alice.nid, &write)
            try await server.homeserver.database.write(write)
            return token
        }
        func use(_ token: String) async -> MatrixError.Code? {
            await code { _ = try await accounts.logIn(token: token, .init(displayName: "Second")) }
        }
        let first = try await make()
        #expect(await use(first) == nil)
        #expect(await use(first) == .forbidden)
        #expect(await use("nothing") == .forbidden)
        let late = try await make()
        server.clock.advance(by: 120_000)
        #expect(await use(late) == .forbidden)
        let afterPassword = try await make()
        _ = try await accounts.setPassword("other", of: "alice")
        #expect(await use(afterPassword) == .forbidden)
        let afterLogout = try await make()
        try await accounts.logOut(alice)
        #expect(await use(afterLogout) == .forbidden)
        let openID = try await accounts.makeOpenIDToken(for: alice)
        #expect(await use(openID) == .forbidden)
        #expect(try await accounts.user(ofOpenIDToken: openID) == alice.userID)
        #expect(try await accounts.user(ofOpenIDToken: try await make()) == nil)
        // It is no access token.
        #expect(await code { _ = try await accounts.tokens.requester(for: openID) } == .unknownToken)
        server.clock.advance(by: 3_600_000)
        #expect(try await accounts.user(ofOpenIDToken: openID) == nil)
        await server.close()
    }
}
