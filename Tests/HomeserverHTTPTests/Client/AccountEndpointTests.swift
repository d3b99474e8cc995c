import MatrixCore
import NIOHTTP1
import RoostTestSupport
import Testing

@testable import Homeserver
@testable import HomeserverHTTP

@Suite("Client-Server API: accounts")
struct AccountEndpointTests {
    private let base = "/_matrix/client/v3"

    private func logIn(
        _ client: ClientSession, _ name: String, refreshes: Bool = false, password: String = "secret"
    ) async -> ClientSession.Answer {
        await client.ask(
            .POST, "\(base)/login", nil,
            [
                "type": "m.login.password", "identifier": ["type": "m.id.user", "user": .string(name)],
                "password": .string(password), "refresh_token": .bool(refreshes),
            ])
    }

    private func administrator(_ client: ClientSession) async throws -> String {
        let token = await client.register("boss")
        _ = try await client.server.homeserver.accounts.setAdmin(true, of: "boss")
        return token
    }

    @Test("a registration that can't have its device takes neither the name nor the token")
    func impossibleDevice() async throws {
        let client = ClientSession(try await TestServer { $0.registration.mode = .token })
        let token = "once"
        _ = try await client.server.homeserver.accounts.createRegistrationToken(token, usesAllowed: 1, expiresTS: nil)
        func register(_ device: String) async -> ClientSession.Answer {
            await client.ask(
                .POST, "\(base)/register",
                [
                    "username": "alice", "password": "secret", "device_id": .string(device),
                    "auth": ["type": "m.login.registration_token", "token": .string(token)],
                ])
        }
        #expect(await register("").code == "M_INVALID_PARAM")
        #expect(await register("PHONE").status == 200)
        await client.server.close()
    }

    @Test("a client that can renew its access token gets what it needs for it")
    func refresh() async throws {
        let client = ClientSession(try await TestServer())
        let registered = await client.ask(
            .POST, "\(base)/register", nil,
            ["username": "alice", "password": "secret", "refresh_token": true, "auth": ["type": "m.login.dummy"]])
        #expect(registered.json["expires_in_ms"] == 3_600_000 && registered.json["refresh_token"] != nil)
        let login = await logIn(client, "alice", refreshes: true)
        client.server.clock.advance(by: 3_600_000)
        let expired = await client.ask(.GET, "\(base)/account/whoami", login.json["access_token"]?.stringValue)
        #expect(expired.status == 401 && expired.code == "M_UNKNOWN_TOKEN" && expired.json["soft_logout"] == true)
        let renewed = await client.ask(
            .POST, "\(base)/refresh", nil, ["refresh_token": login.json["refresh_token"] ?? .null])
        #expect(renewed.status == 200 && renewed.json["user_id"] == nil)
        let token = renewed.json["access_token"]?.stringValue
        #expect(
            await client.ask(.GET, "\(base)/account/whoami", token).json["device_id"] == login.json["device_id"])
        let again = await client.ask(
            .POST, "\(base)/refresh", nil, ["refresh_token": login.json["refresh_token"] ?? .null])
        #expect(again.status == 401 && again.code == "M_UNKNOWN_TOKEN")
        // An access token is no refresh token, nor the other way round.
        let other = await logIn(client, "alice", refreshes: true).json
        #expect(
            await client.ask(.POST, "\(base)/refresh", nil, ["refresh_token": other["access_token"] ?? .null]).status
                == 401)
        #expect(
            await client.ask(.GET, "\(base)/account/whoami", other["refresh_token"]?.stringValue).code
                == "M_UNKNOWN_TOKEN")
        await client.server.close()
    }

    @Test("a second device signs in with a token that the first one asked for, proving again who it is")
    func loginToken() async throws {
        let client = ClientSession(try await TestServer())
        let alice = await client.register("alice")
        let path = "/_matrix/client/v1/login/get_token"
        let challenge = await client.ask(.POST, path, alice, [:])
        #expect(challenge.status == 401 && challenge.json["flows"] == [["stages": ["m.login.password"]]])
        func prove(_ password: String) async -> ClientSession.Answer {
            await client.ask(
                .POST, path, alice,
                [
                    "auth": [
                        "type": "m.login.password", "identifier": ["type": "m.id.user", "user": "alice"],
                        "password": .string(password), "session": challenge.json["session"] ?? .null,
                    ]
                ])
        }
        let refused = await prove("guess")
        #expect(refused.status == 401 && refused.json["login_token"] == nil)
        let given = await prove("secret")
        #expect(given.status == 200 && given.json["expires_in_ms"] == 120_000)
        let login: JSON = ["type": "m.login.token", "token": given.json["login_token"] ?? .null]
        let answer = await client.ask(.POST, "\(base)/login", nil, login)
        #expect(answer.status == 200 && answer.json["user_id"] == "@alice:localhost")
        let again = await client.ask(.POST, "\(base)/login", nil, login)
        #expect(again.status == 403 && again.code == "M_FORBIDDEN")
        await client.server.close()
    }

    @Test("A28: a locked account gets one answer on every path that knows it, and may log out")
    func locked() async throws {
        let client = ClientSession(try await TestServer())
        let boss = try await administrator(client), alice = await client.register("alice")
        let path = "/_matrix/client/v1/admin/lock/@alice:localhost"
        #expect(await client.ask(.GET, path, boss).json == ["locked": false])
        #expect(await client.ask(.PUT, path, boss, ["locked": true]).json == ["locked": true])
        #expect(await client.ask(.GET, path, boss).json == ["locked": true])
        var tried = 0
        for endpoint in ClientAPI(client.server.homeserver).endpoints where endpoint.authentication != .none {
            for pattern in endpoint.patterns where !"\(pattern)".contains("/logout") {
                let answer = await client.ask(endpoint.method, ClientAPITests.path(of: pattern), alice, [:])
                #expect(
                    answer.status == 401 && answer.code == "M_USER_LOCKED" && answer.json["soft_logout"] == true,
                    "\(endpoint.method) \(pattern): \(answer.summary)")
                tried += 1
            }
        }
        #expect(tried > 80)
        #expect(await logIn(client, "alice").code == "M_USER_LOCKED")
        #expect(await client.ask(.PUT, path, boss, ["locked": false]).status == 200)
        #expect(await client.ask(.GET, "\(base)/account/whoami", alice).status == 200)
        _ = await client.ask(.PUT, path, boss, ["locked": true])
        #expect(await client.ask(.POST, "\(base)/logout", alice).status == 200)
        #expect(await client.ask(.GET, "\(base)/account/whoami", alice).code == "M_UNKNOWN_TOKEN")
        await client.server.close()
    }

    @Test("A28: an account that has gone is nobody on every path, whatever tokens it had")
    func deactivated() async throws {
        let client = ClientSession(try await TestServer())
        let alice = await client.register("alice")
        let session = await logIn(client, "alice", refreshes: true).json
        _ = try await client.server.homeserver.deactivation.deactivate("alice")
        for token in [alice, session["access_token"]?.stringValue ?? ""] {
            for endpoint in ClientAPI(client.server.homeserver).endpoints where endpoint.authentication != .none {
                for pattern in endpoint.patterns {
                    let answer = await client.ask(endpoint.method, ClientAPITests.path(of: pattern), token, [:])
                    #expect(answer.status == 401 && answer.code == "M_UNKNOWN_TOKEN", "\(pattern): \(answer.summary)")
                }
            }
        }
        #expect(
            await client.ask(.POST, "\(base)/refresh", nil, ["refresh_token": session["refresh_token"] ?? .null]).status
                == 401)
        #expect(await logIn(client, "alice").code == "M_FORBIDDEN")
        await client.server.close()
    }

    @Test("a suspended account reads, leaves, redacts its own and logs out, and does nothing else to anybody")
    func suspended() async throws {
        let client = ClientSession(try await TestServer())
        let boss = try await administrator(client), alice = await client.register("alice")
        let room = await client.room(of: boss)
        _ = await client.ask(.POST, "\(base)/join/\(room)", alice, [:])
        let said =
            await client.ask(
                .PUT, "\(base)/rooms/\(room)/send/m.room.message/1", alice, ["msgtype": "m.text", "body": "x"]
            ).json["event_id"]?.stringValue ?? ""
        #expect(
            await client.ask(
                .PUT, "/_matrix/client/v1/admin/suspend/@alice:localhost", boss, ["suspended": true]
            ).json == ["suspended": true])
        let refused: [(HTTPMethod, String, JSON)] = [
            (.PUT, "rooms/\(room)/send/m.room.message/2", ["msgtype": "m.text", "body": "x"]),
            (.PUT, "rooms/\(room)/state/m.room.topic", ["topic": "x"]), (.POST, "createRoom", [:]),
            (.POST, "join/\(room)", [:]), (.POST, "rooms/\(room)/join", [:]), (.POST, "knock/\(room)", [:]),
            (.POST, "rooms/\(room)/invite", ["user_id": "@boss:localhost"]),
            (.POST, "rooms/\(room)/kick", ["user_id": "@boss:localhost"]),
            (.PUT, "profile/@alice:localhost/displayname", ["displayname": "x"]),
            (.PUT, "rooms/\(room)/typing/@alice:localhost", ["typing": true]),
            (.PUT, "directory/room/%23a:localhost", ["room_id": .string(room)]),
        ]
        for (method, path, body) in refused {
            let answer = await client.ask(method, "\(base)/\(path)", alice, body)
            #expect(answer.status == 403 && answer.code == "M_USER_SUSPENDED", "\(path): \(answer.summary)")
        }
        #expect(
            await client.ask(.POST, "/_matrix/media/v3/upload", token: alice, raw: [1]).code == "M_USER_SUSPENDED")
        let allowed: [(HTTPMethod, String, JSON?)] = [
            (.GET, "sync", nil), (.GET, "rooms/\(room)/messages?dir=b", nil), (.GET, "account/whoami", nil),
            (.PUT, "rooms/\(room)/redact/\(said)/3", [:]), (.POST, "user/@alice:localhost/filter", [:]),
            (.POST, "rooms/\(room)/leave", [:]), (.POST, "logout", nil),
        ]
        for (method, path, body) in allowed {
            let answer = await client.ask(method, "\(base)/\(path)", alice, body)
            #expect(answer.status == 200, "\(path): \(answer.summary)")
        }
        #expect(await logIn(client, "alice").status == 200)
        await client.server.close()
    }

    @Test("what the lists for locked, suspended and guest accounts name is there")
    func restrictions() async throws {
        let client = ClientSession(try await TestServer())
        let names = Set(
            ClientAPI(client.server.homeserver).endpoints.flatMap { endpoint in
                endpoint.patterns.map { AccountRestrictions.name(endpoint.method, $0) }
            })
        let listed = AccountRestrictions.locked.union(AccountRestrictions.guests).union(AccountRestrictions.suspended)
        // Pushers and searches are still to come.
        #expect(listed.subtracting(names).isSubset(of: ["POST /pushers/set", "POST /search"]))
        #expect(listed.count > 60)
        await client.server.close()
    }

    @Test("only administrators moderate, and others don't learn who is there")
    func moderation() async throws {
        let client = ClientSession(try await TestServer())
        let boss = try await administrator(client), alice = await client.register("alice")
        for user in ["@alice:localhost", "@boss:localhost", "@nobody:localhost", "@a:elsewhere"] {
            for what in ["lock", "suspend"] {
                let path = "/_matrix/client/v1/admin/\(what)/\(user)"
                #expect(await client.ask(.GET, path, alice).code == "M_FORBIDDEN")
                #expect(await client.ask(.PUT, path, alice, ["locked": true, "suspended": true]).code == "M_FORBIDDEN")
            }
        }
        let lock = "/_matrix/client/v1/admin/lock"
        for (user, status) in [("@nobody:localhost", 404), ("@a:elsewhere", 400), ("@boss:localhost", 403), ("x", 400)]
        {
            #expect(await client.ask(.PUT, "\(lock)/\(user)", boss, ["locked": true]).status == status, "\(user)")
        }
        let capabilities = await client.ask(.GET, "\(base)/capabilities", boss).json["capabilities"]
        #expect(capabilities?["m.account_moderation"] == ["lock": true, "suspend": true])
        let others = await client.ask(.GET, "\(base)/capabilities", alice).json["capabilities"]
        #expect(others?["m.account_moderation"] == nil && others?["m.get_login_token"] == ["enabled": true])
        await client.server.close()
    }

    @Test("who is where is told to the person and to administrators")
    func whois() async throws {
        let client = ClientSession(try await TestServer())
        let boss = try await administrator(client), alice = await client.register("alice")
        _ = await client.ask(
            .GET, "\(base)/account/whoami", token: alice, headers: [("User-Agent", "Test/1.0")])
        let path = "\(base)/admin/whois/@alice:localhost"
        for token in [boss, alice] {
            let answer = await client.ask(.GET, path, token)
            #expect(answer.json["user_id"] == "@alice:localhost")
            let device = answer.json["devices"]?.objectValue?.map(\.value).first
            let connection = device?["sessions"]?.arrayValue?.first?["connections"]?.arrayValue?.first
            #expect(connection?["last_seen"] == .integer(client.server.clock.now))
            #expect(connection?["ip"] == "local" && connection?["user_agent"] == "Test/1.0")
        }
        #expect(await client.ask(.GET, "\(base)/admin/whois/@boss:localhost", alice).code == "M_FORBIDDEN")
        #expect(await client.ask(.GET, "\(base)/admin/whois/@nobody:localhost", alice).code == "M_FORBIDDEN")
        #expect(await client.ask(.GET, "\(base)/admin/whois/@nobody:localhost", boss).code == "M_NOT_FOUND")
        await client.server.close()
    }

    @Test("guests do what the specification lists, and nothing else")
    func guests() async throws {
        let client = ClientSession(try await TestServer { $0.registration.guests = true })
        let alice = await client.register("alice")
        let registered = await client.ask(.POST, "\(base)/register?kind=guest", nil, [:])
        let guest = registered.json["access_token"]?.stringValue ?? ""
        let user = registered.json["user_id"]?.stringValue ?? ""
        #expect(await client.ask(.GET, "\(base)/account/whoami", guest).json["is_guest"] == true)
        let room =
            await client.ask(
                .POST, "\(base)/createRoom", alice, ["preset": "public_chat"]
            ).json["room_id"]?.stringValue ?? ""
        #expect(await client.ask(.POST, "\(base)/join/\(room)", guest, [:]).code == "M_GUEST_ACCESS_FORBIDDEN")
        func setAccess(_ access: JSON) async -> Int {
            await client.ask(
                .PUT, "\(base)/rooms/\(room)/state/m.room.guest_access", alice, ["guest_access": access]
            ).status
        }
        #expect(await setAccess("can_join") == 200)
        let allowed: [(HTTPMethod, String, JSON?)] = [
            (.POST, "join/\(room)", [:]), (.PUT, "rooms/\(room)/send/m.room.message/1", ["body": "x"]),
            (.GET, "rooms/\(room)/state", nil), (.GET, "rooms/\(room)/messages?dir=b", nil), (.GET, "sync", nil),
            (.GET, "rooms/\(room)/members", nil), (.PUT, "profile/\(user)/displayname", ["displayname": "Guest"]),
            (.DELETE, "profile/\(user)/displayname", nil), (.GET, "devices", nil),
        ]
        for (method, path, body) in allowed {
            let answer = await client.ask(method, "\(base)/\(path)", guest, body)
            #expect(answer.status == 200, "\(path): \(answer.summary)")
        }
        let refused: [(HTTPMethod, String, JSON?)] = [
            (.POST, "createRoom", [:]), (.PUT, "profile/\(user)/avatar_url", ["avatar_url": "mxc://a/b"]),
            (.DELETE, "profile/\(user)/m.tz", nil), (.POST, "rooms/\(room)/invite", ["user_id": "@alice:localhost"]),
            (.POST, "account/password", ["new_password": "x"]), (.POST, "account/deactivate", [:]),
            (.PUT, "directory/room/%23a:localhost", ["room_id": .string(room)]), (.GET, "joined_rooms", nil),
            (.POST, "rooms/\(room)/report", ["reason": ""]),
        ]
        for (method, path, body) in refused {
            let answer = await client.ask(method, "\(base)/\(path)", guest, body)
            #expect(answer.status == 403 && answer.code == "M_GUEST_ACCESS_FORBIDDEN", "\(path): \(answer.summary)")
        }
        #expect(await client.ask(.POST, "/_matrix/media/v3/upload", token: guest, raw: [1]).status == 403)
        // The room changes its mind, and the guest is out.
        #expect(await setAccess("forbidden") == 200)
        let member = await client.ask(.GET, "\(base)/rooms/\(room)/state/m.room.member/\(user)", alice)
        #expect(member.json["membership"] == "leave")
        await client.server.close()
    }

    @Test("people and documents to turn to are told if there are any")
    func support() async throws {
        let without = ClientSession(try await TestServer())
        #expect(await without.ask(.GET, "/.well-known/matrix/support").code == "M_NOT_FOUND")
        await without.server.close()
        let with = ClientSession(
            try await TestServer {
                $0.support.contacts = [.init(role: "m.role.admin", matrixID: "@me:localhost")]
                $0.support.page = "https://localhost/help"
            })
        #expect(
            await with.ask(.GET, "/.well-known/matrix/support").json == [
                "contacts": [["role": "m.role.admin", "matrix_id": "@me:localhost"]],
                "support_page": "https://localhost/help",
            ])
        await with.server.close()
    }

    @Test("the key of a policy server is told, if this is one")
    func policyServer() async throws {
        let without = ClientSession(try await TestServer())
        #expect(await without.ask(.GET, "/.well-known/matrix/policy_server").code == "M_NOT_FOUND")
        await without.server.close()
        let with = ClientSession(try await TestServer { $0.policyServer.enabled = true })
        let key = try #require(with.server.homeserver.policySigning?.publicKey)
        #expect(
            await with.ask(.GET, "/.well-known/matrix/policy_server").json
                == ["public_keys": ["ed25519": .string(key)]])
        await with.server.close()
    }

    @Test("a token for other services tells them who somebody is, and opens nothing here")
    func openID() async throws {
        let client = ClientSession(try await TestServer())
        let alice = await client.register("alice"), bob = await client.register("bob")
        let path = "\(base)/user/@alice:localhost/openid/request_token"
        let answer = await client.ask(.POST, path, alice, [:])
        #expect(answer.json["token_type"] == "Bearer" && answer.json["expires_in"] == 3_600)
        #expect(answer.json["matrix_server_name"] == "localhost")
        #expect(await client.ask(.POST, path, bob, [:]).code == "M_FORBIDDEN")
        let token = answer.json["access_token"]?.stringValue ?? ""
        #expect(await client.ask(.GET, "\(base)/account/whoami", token).code == "M_UNKNOWN_TOKEN")
        #expect(
            try await client.server.homeserver.accounts.user(ofOpenIDToken: token)?.string == "@alice:localhost")
        await client.server.close()
    }

    @Test("an application service speaks for its users by its own token")
    func appservices() async throws {
        let pattern = try #require(NamespacePattern("@_irc_.*"))
        let registration = AppserviceRegistration(
            id: "irc", asToken: "speaks", hsToken: "hears", senderLocalpart: "_irc_bot",
            users: [.init(isExclusive: true, pattern: pattern)])
        let client = ClientSession(try await TestServer { $0.appservices = [registration] })
        let whoami = "\(base)/account/whoami"
        let bot = await client.ask(.GET, whoami, "speaks")
        #expect(bot.json["user_id"] == "@_irc_bot:localhost" && bot.json["device_id"] == nil)
        let new: JSON = ["type": "m.login.application_service", "username": "_irc_bob", "inhibit_login": true]
        #expect(await client.ask(.POST, "\(base)/register", nil, new).code == "M_MISSING_TOKEN")
        #expect(await client.ask(.POST, "\(base)/register", "nobody's", new).code == "M_UNKNOWN_TOKEN")
        #expect(await client.ask(.POST, "\(base)/register", "speaks", new).json == ["user_id": "@_irc_bob:localhost"])
        let outside: JSON = ["type": "m.login.application_service", "username": "bob"]
        #expect(await client.ask(.POST, "\(base)/register", "speaks", outside).code == "M_EXCLUSIVE")
        let taken: JSON = ["username": "_irc_eve", "password": "x", "auth": ["type": "m.login.dummy"]]
        #expect(await client.ask(.POST, "\(base)/register", nil, taken).code == "M_EXCLUSIVE")
        #expect(
            await client.ask(.GET, "\(base)/register/available?username=_irc_eve").code == "M_EXCLUSIVE")
        let asBob = "user_id=@_irc_bob:localhost"
        #expect(await client.ask(.GET, "\(whoami)?\(asBob)", "speaks").json["user_id"] == "@_irc_bob:localhost")
        let unknown = await client.ask(.GET, "\(whoami)?\(asBob)&device_id=X", "speaks")
        #expect(unknown.status == 400 && unknown.code == "M_UNKNOWN_DEVICE")
        #expect(
            await client.ask(.PUT, "\(base)/devices/X?\(asBob)", "speaks", ["display_name": "Bridge"]).status == 201)
        #expect(
            await client.ask(.PUT, "\(base)/devices/X?\(asBob)", "speaks", ["display_name": "Again"]).status == 200)
        #expect(await client.ask(.GET, "\(whoami)?\(asBob)&device_id=X", "speaks").json["device_id"] == "X")
        #expect(await client.ask(.DELETE, "\(base)/devices/X?\(asBob)", "speaks", [:]).status == 200)
        #expect(await client.ask(.GET, "\(whoami)?user_id=@alice:localhost", "speaks").code == "M_FORBIDDEN")
        // Others can't pretend by the same parameter.
        let alice = await client.register("alice")
        #expect(await client.ask(.GET, "\(whoami)?\(asBob)", alice).json["user_id"] == "@alice:localhost")
        let room =
            await client.ask(
                .POST, "\(base)/createRoom?\(asBob)", "speaks", ["preset": "public_chat"]
            ).json["room_id"]?.stringValue ?? ""
        let sent = await client.ask(
            .PUT, "\(base)/rooms/\(room)/send/m.room.message/1?\(asBob)&ts=1000", "speaks", ["body": "old"])
        let event = await client.ask(
            .GET, "\(base)/rooms/\(room)/event/\(sent.json["event_id"]?.stringValue ?? "")?\(asBob)", "speaks")
        #expect(event.json["origin_server_ts"] == 1_000)
        for wrong in ["-1", "9007199254740992", "now"] {
            #expect(
                await client.ask(
                    .PUT, "\(base)/rooms/\(room)/send/m.room.message/2?\(asBob)&ts=\(wrong)", "speaks", ["body": "x"]
                ).code == "M_INVALID_PARAM")
        }
        _ = await client.ask(.POST, "\(base)/join/\(room)", alice, [:])
        let ordinary = await client.ask(
            .PUT, "\(base)/rooms/\(room)/send/m.room.message/3?ts=1000", alice, ["body": "x"])
        let own = await client.ask(
            .GET, "\(base)/rooms/\(room)/event/\(ordinary.json["event_id"]?.stringValue ?? "")", alice)
        #expect(own.json["origin_server_ts"] == .integer(client.server.clock.now))
        let login = await client.ask(
            .POST, "\(base)/login", "speaks",
            ["type": "m.login.application_service", "identifier": ["type": "m.id.user", "user": "_irc_bob"]])
        #expect(login.status == 200 && login.json["user_id"] == "@_irc_bob:localhost")
        await client.server.close()
    }
}
