import MatrixCore
import NIOHTTP1
import RoostTestSupport
import Testing

@testable import Homeserver
@testable import HomeserverHTTP

@Suite("Client-Server API: what belongs to a person")
struct PersonTests {
    private let base = "/_matrix/client/v3"

    @Test("a profile has any fields; name and picture show in rooms")
    func profiles() async throws {
        let client = ClientSession(try await TestServer())
        let alice = await client.register("alice"), bob = await client.register("bob")
        let room = await client.ask(.POST, "\(base)/createRoom", alice, [:]).json["room_id"]?.stringValue ?? ""
        let profile = "\(base)/profile/@alice:localhost"
        #expect(await client.ask(.PUT, "\(profile)/displayname", alice, ["displayname": "Alice"]).status == 200)
        #expect(await client.ask(.PUT, "\(profile)/m.tz", alice, ["m.tz": "Europe/Berlin"]).status == 200)
        #expect(await client.ask(.GET, profile, nil).json == ["displayname": "Alice", "m.tz": "Europe/Berlin"])
        #expect(await client.ask(.GET, "\(profile)/displayname", bob).json == ["displayname": "Alice"])
        let member = await client.ask(.GET, "\(base)/rooms/\(room)/state/m.room.member/@alice:localhost", alice)
        #expect(member.json["displayname"] == "Alice" && member.json["membership"] == "join")
        #expect(await client.ask(.PUT, "\(profile)/displayname", bob, ["displayname": "Not me"]).status == 403)
        #expect(await client.ask(.PUT, "\(profile)/displayname", alice, ["displayname": 7]).code == "M_BAD_JSON")
        #expect(await client.ask(.PUT, "\(profile)/displayname", alice, [:]).code == "M_MISSING_PARAM")
        let long = String(repeating: "k", count: 256)
        #expect(await client.ask(.PUT, "\(profile)/\(long)", alice, [long: 1]).code == "M_KEY_TOO_LARGE")
        let large = JSON.string(String(repeating: "x", count: 66_000))
        #expect(await client.ask(.PUT, "\(profile)/big", alice, ["big": large]).code == "M_PROFILE_TOO_LARGE")
        #expect(await client.ask(.DELETE, "\(profile)/m.tz", alice).status == 200)
        #expect(await client.ask(.GET, "\(profile)/m.tz", nil).code == "M_NOT_FOUND")
        #expect(await client.ask(.GET, "\(base)/profile/@nobody:localhost", nil).code == "M_NOT_FOUND")
        await client.server.close()
    }

    @Test("account data and tags are kept, arrive by sync, and are nobody else's business")
    func accountData() async throws {
        let client = ClientSession(try await TestServer())
        let alice = await client.register("alice"), bob = await client.register("bob")
        let room = await client.ask(.POST, "\(base)/createRoom", alice, [:]).json["room_id"]?.stringValue ?? ""
        let user = "\(base)/user/@alice:localhost"
        let since = await client.ask(.GET, "\(base)/sync", alice).json["next_batch"]?.stringValue ?? ""
        #expect(await client.ask(.GET, "\(user)/account_data/m.direct", alice).code == "M_NOT_FOUND")
        #expect(await client.ask(.PUT, "\(user)/account_data/m.direct", alice, ["@b:c": [.string(room)]]).status == 200)
        #expect(await client.ask(.GET, "\(user)/account_data/m.direct", alice).json == ["@b:c": [.string(room)]])
        #expect(await client.ask(.PUT, "\(user)/rooms/\(room)/account_data/x.y", alice, ["a": 1.5]).status == 200)
        #expect(await client.ask(.PUT, "\(user)/rooms/\(room)/tags/m.favourite", alice, ["order": 0.25]).status == 200)
        #expect(await client.ask(.PUT, "\(user)/rooms/\(room)/tags/u.work", alice).status == 200)
        #expect(
            await client.ask(.PUT, "\(user)/rooms/\(room)/tags/u.x", alice, ["order": "first"]).code == "M_BAD_JSON")
        #expect(await client.ask(.DELETE, "\(user)/rooms/\(room)/tags/u.work", alice).status == 200)
        let tags: JSON = ["tags": ["m.favourite": ["order": 0.25]]]
        #expect(await client.ask(.GET, "\(user)/rooms/\(room)/tags", alice).json == tags)
        let answer = await client.ask(.GET, "\(base)/sync?since=\(since)", alice).json
        #expect(answer["account_data"]?["events"]?.arrayValue?.first?["type"] == "m.direct")
        let ofRoom = answer["rooms"]?["join"]?[room]?["account_data"]?["events"]?.arrayValue ?? []
        #expect(ofRoom == [["type": "x.y", "content": ["a": 1.5]], ["type": "m.tag", "content": tags]])
        for method in [HTTPMethod.GET, .PUT] {
            #expect(await client.ask(method, "\(user)/account_data/m.direct", bob, [:]).status == 403)
        }
        for type in ["m.fully_read", "m.push_rules"] {
            let refused = await client.ask(.PUT, "\(user)/account_data/\(type)", alice, [:])
            #expect(refused.status == 405 && refused.code == "M_BAD_JSON")
        }
        await client.server.close()
    }

    /// MSC4306, "New Push Rules".
    @Test("rules about threads are shown where the server has them, can be switched off, and nobody makes others")
    func threadRules() async throws {
        let client = ClientSession(try await TestServer { $0.threads.notifyFollowersOnly = true })
        let alice = await client.register("alice")
        let features = await client.ask(.GET, "/_matrix/client/versions", nil).json["unstable_features"]
        #expect(features?["org.matrix.msc4306"] == true)
        let kind = "\(base)/pushrules/global/postcontent"
        let rule = "\(kind)/.io.element.msc4306.rule.subscribed_thread"
        let found = await client.ask(.GET, rule, alice).json
        #expect(found["conditions"] == [["kind": "io.element.msc4306.thread_subscription", "subscribed": true]])
        for name in ["x", ".io.element.msc4306.rule.mine"] {
            let refused = await client.ask(.PUT, "\(kind)/\(name)", alice, ["actions": [], "conditions": []])
            #expect(refused.status == 400 && refused.code == "M_INVALID_PARAM")
        }
        #expect(await client.ask(.DELETE, rule, alice).code == "M_INVALID_PARAM")
        #expect(await client.ask(.PUT, "\(rule)/enabled", alice, ["enabled": false]).status == 200)
        #expect(await client.ask(.GET, "\(rule)/enabled", alice).json == ["enabled": false])
        #expect(await client.ask(.PUT, "\(rule)/actions", alice, ["actions": []]).status == 200)
        let all = await client.ask(.GET, "\(base)/pushrules/", alice).json["global"]?["postcontent"]?.arrayValue
        #expect(all?.map { $0["enabled"] } == [true, false])
        let plain = ClientSession(try await TestServer())
        let versions = await plain.ask(.GET, "/_matrix/client/versions", nil).json
        #expect(versions["unstable_features"]?["org.matrix.msc4306"] == nil)
        await plain.server.close()
        await client.server.close()
    }

    @Test("push rules begin with the defaults, and are the user's to change")
    func pushRules() async throws {
        let client = ClientSession(try await TestServer())
        let alice = await client.register("alice")
        let rules = "\(base)/pushrules/global"
        let first = await client.ask(.GET, "\(base)/sync", alice).json
        let delivered = first["account_data"]?["events"]?.arrayValue?.first { $0["type"] == "m.push_rules" }
        #expect(delivered?["content"] == (await client.ask(.GET, "\(base)/pushrules/", alice).json))
        #expect(await client.ask(.GET, "\(rules)/override/.m.rule.master/enabled", alice).json == ["enabled": false])
        let mine: JSON = ["actions": ["notify"], "pattern": "cake"]
        #expect(await client.ask(.PUT, "\(rules)/content/cake", alice, mine).status == 200)
        #expect(
            await client.ask(.PUT, "\(rules)/content/pie?before=cake", alice, ["actions": [], "pattern": "pie"]).status
                == 200)
        let content = await client.ask(.GET, "\(rules)/", alice).json["content"]?.arrayValue?.compactMap {
            $0["rule_id"]?.stringValue
        }
        #expect(content?.prefix(2) == ["pie", "cake"])
        #expect(
            await client.ask(.PUT, "\(rules)/content/cake/actions", alice, ["actions": [["set_tweak": "highlight"]]])
                .status == 200)
        #expect(
            await client.ask(.GET, "\(rules)/content/cake/actions", alice).json == [
                "actions": [["set_tweak": "highlight"]]
            ])
        #expect(
            await client.ask(.PUT, "\(rules)/underride/.m.rule.message/enabled", alice, ["enabled": false]).status
                == 200)
        #expect(await client.ask(.GET, "\(rules)/underride/.m.rule.message", alice).json["enabled"] == false)
        let since = first["next_batch"]?.stringValue ?? ""
        let changed = await client.ask(.GET, "\(base)/sync?since=\(since)", alice).json["account_data"]?["events"]?
            .arrayValue
        #expect(changed?.map { $0["type"] } == ["m.push_rules"])
        for (method, path, body, code) in [
            (HTTPMethod.PUT, "content/.mine", mine, "M_INVALID_PARAM"),
            (.PUT, "content/x", ["actions": []], "M_MISSING_PARAM"),
            (.PUT, "content/x", ["pattern": "x"], "M_MISSING_PARAM"), (.PUT, "content/x?after=none", mine, "M_UNKNOWN"),
            (.DELETE, "override/.m.rule.master", [:], "M_INVALID_PARAM"), (.DELETE, "content/none", [:], "M_NOT_FOUND"),
            (.GET, "room/none", [:], "M_NOT_FOUND"), (.PUT, "override/x", ["actions": [1]], "M_BAD_JSON"),
            // MSC4306: the server's alone; and there are none unless a setting is on.
            (.PUT, "postcontent/x", ["actions": [], "conditions": []], "M_INVALID_PARAM"),
            (.GET, "postcontent/.io.element.msc4306.rule.subscribed_thread", [:], "M_NOT_FOUND"),
        ] as [(HTTPMethod, String, JSON, String)] {
            let answer = await client.ask(method, "\(rules)/\(path)", alice, body)
            #expect(answer.code == code && answer.status < 500, "\(method) \(path): \(answer.json)")
        }
        #expect(await client.ask(.GET, "\(rules)/other/x", alice).code == "M_UNRECOGNIZED")
        #expect(await client.ask(.DELETE, "\(rules)/content/cake", alice).status == 200)
        #expect(await client.ask(.GET, "\(rules)/content/cake", alice).code == "M_NOT_FOUND")
        await client.server.close()
    }

    @Test("A28: ending devices, changing the password and leaving for good need the password again")
    func devices() async throws {
        let client = ClientSession(try await TestServer())
        let alice = await client.register("alice")
        _ = await client.register("bob")
        func logIn() async -> (token: String, device: String) {
            let answer = await client.ask(
                .POST, "\(base)/login", nil,
                [
                    "type": "m.login.password", "identifier": ["type": "m.id.user", "user": "alice"],
                    "password": "secret",
                ])
            return (answer.json["access_token"]?.stringValue ?? "", answer.json["device_id"]?.stringValue ?? "")
        }
        let (phone, phoneID) = await logIn()
        let devices = await client.ask(.GET, "\(base)/devices", alice).json["devices"]?.arrayValue
        #expect(devices?.count == 2)
        #expect(await client.ask(.PUT, "\(base)/devices/\(phoneID)", alice, ["display_name": "Phone"]).status == 200)
        #expect(await client.ask(.GET, "\(base)/devices/\(phoneID)", alice).json["display_name"] == "Phone")
        #expect(await client.ask(.GET, "\(base)/devices/OTHER", alice).code == "M_NOT_FOUND")

        let challenge = await client.ask(.DELETE, "\(base)/devices/\(phoneID)", alice, [:])
        #expect(challenge.status == 401 && challenge.json["flows"] == [["stages": ["m.login.password"]]])
        let session = challenge.json["session"] ?? .null
        func auth(_ user: String, _ password: String, _ session: JSON = .null) -> JSON {
            var auth: JSON = [
                "type": "m.login.password", "identifier": ["type": "m.id.user", "user": .string(user)],
                "password": .string(password),
            ]
            if !session.isNull { auth["session"] = session }
            return auth
        }
        for (user, password) in [("alice", "wrong"), ("bob", "secret")] {
            let refused = await client.ask(
                .DELETE, "\(base)/devices/\(phoneID)", alice, ["auth": auth(user, password, session)])
            #expect(refused.status == 401 && refused.code == "M_FORBIDDEN")
        }
        // A session for one thing can't be spent on another.
        let other = await client.ask(
            .POST, "\(base)/account/deactivate", alice, ["auth": auth("alice", "secret", session)])
        #expect(other.status == 400)
        #expect(await client.ask(.GET, "\(base)/account/whoami", phone).status == 200)
        let done = await client.ask(
            .DELETE, "\(base)/devices/\(phoneID)", alice, ["auth": auth("alice", "secret", session)])
        #expect(done.status == 200)
        #expect(await client.ask(.GET, "\(base)/account/whoami", phone).status == 401)

        let (laptop, _) = await logIn()
        let changed = await client.ask(
            .POST, "\(base)/account/password", alice, ["new_password": "better", "auth": auth("alice", "secret")])
        #expect(changed.status == 200)
        #expect(await client.ask(.GET, "\(base)/account/whoami", laptop).status == 401)
        #expect(await client.ask(.GET, "\(base)/account/whoami", alice).status == 200)
        #expect(await logIn().token.isEmpty)

        let gone = await client.ask(.POST, "\(base)/account/deactivate", alice, ["auth": auth("alice", "better")])
        #expect(gone.status == 200 && gone.json["id_server_unbind_result"] == "success")
        #expect(await client.ask(.GET, "\(base)/account/whoami", alice).status == 401)
        await client.server.close()
    }
}
