import NIOHTTP1
import Testing

@testable import HomeserverHTTP

/// Every operation that is implemented, asked for the least that is right by the table of facts. The session holds what
/// it answers against the table.
@Suite("Right input, generated from the specification's facts")
struct GeneratedRightInputTests {
    @Test("operations that read answer")
    func reading() async throws {
        let scene = try await GeneratedInputScene()
        for operation in scene.operations where operation.method == "GET" {
            await expectSuccess(of: operation, in: scene)
        }
        await scene.client.server.close()
    }

    @Test("operations that change something do it", .timeLimit(.minutes(20)))
    func writing() async throws {
        // What is put doesn't keep anybody from putting something else.
        let shared = try await GeneratedInputScene()
        for operation in shared.operations where operation.method == "PUT" {
            await expectSuccess(of: operation, in: shared)
        }
        await shared.client.server.close()
        // What others do may be in the way of the next, so each has a server of its own.
        for operation in shared.operations where !["GET", "PUT"].contains(operation.method) {
            let scene = try await GeneratedInputScene()
            await expectSuccess(of: operation, in: scene)
            await scene.client.server.close()
        }
    }

    @Test("every member, value of an enumeration and parameter that the facts know is of a right type to the server")
    func options() async throws {
        let scene = try await GeneratedInputScene()
        let wrong: Set<String?> = ["M_BAD_JSON", "M_NOT_JSON", "M_MISSING_PARAM"]
        for operation in scene.operations where !operation.path.contains("/logout") {
            var answers: [(what: String, answer: ClientSession.Answer)] = []
            for variant in operation.takesJSON ? scene.bodies.variants(of: operation.request ?? .any) : [] {
                answers.append((variant.what, await scene.ask(operation, variant.body)))
            }
            for parameter in operation.queryParameters {
                for value in scene.bodies.variants(of: parameter.fact, at: "?\(parameter.name)") {
                    let query = scene.query(
                        operation, replacing: [parameter.name: GeneratedInputScene.text(value.body)])
                    answers.append((value.what, await scene.ask(operation, query: query)))
                }
            }
            for parameter in operation.pathParameters {
                guard case .enumeration = parameter.fact else { continue }
                for value in scene.bodies.variants(of: parameter.fact, at: parameter.name) {
                    let path = scene.path(
                        operation, replacing: [parameter.name: GeneratedInputScene.text(value.body)])
                    answers.append((value.what, await scene.ask(operation, path: path)))
                }
            }
            for (what, answer) in answers where !Self.isMoreThanTypes(operation, what) {
                #expect(
                    answer.status < 500 && !wrong.contains(answer.code),
                    "\(operation.name), \(what): \(answer.summary)")
            }
        }
        await scene.client.server.close()
    }

    private func expectSuccess(of operation: ConformanceTable.Operation, in scene: GeneratedInputScene) async {
        var answer = await scene.ask(operation)
        if let stage = answer.json["flows"]?.arrayValue?.first?["stages"]?.arrayValue?.first {
            // The fields of the stages of interactive authentication that the server knows.
            var body = scene.body(operation) ?? [:]
            body["auth"] = [
                "type": stage, "session": answer.json["session"] ?? .null, "password": "secret",
                "identifier": ["type": "m.id.user", "user": "alice"],
            ]
            answer = await scene.ask(operation, body)
        }
        if let refusal = Self.refusals[operation.name] {
            #expect(answer.status == refusal, "\(operation.name): \(answer.summary)")
        } else {
            #expect(answer.status == 200, "\(operation.name): \(answer.summary)")
        }
    }

    /// Where the specification's text asks for more than the table's types can say.
    private static func isMoreThanTypes(_ operation: ConformanceTable.Operation, _ what: String) -> Bool {
        switch operation.name {
        // The filter is JSON within a string.
        case "GET /_matrix/client/v3/rooms/{roomId}/context/{eventId}",
            "GET /_matrix/client/v3/rooms/{roomId}/messages":
            what == "?filter"
        // The member has the name of the profile's field.
        case "PUT /_matrix/client/v3/profile/{userId}/{keyName}": true
        // There must be a master key.
        case "POST /_matrix/client/v3/keys/device_signing/upload": true
        // Rules for content, and they alone, must have a pattern.
        case "PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}": what == "kind = content"
        default: false
        }
    }

    /// Operations for which the least that is right by their types isn't enough, and the status they answer with.
    private static let refusals = [
        // The ways to sign in are no enumeration of the table, and “text” is none of them.
        "POST /_matrix/client/v3/login": 400,
        // What is to be set stands under the name of the field, which the table can't say.
        "PUT /_matrix/client/v3/profile/{userId}/{keyName}": 400,
        // Alice is in her room, to which nobody can knock; Bob isn't, nor is he banned from it; her alias is taken.
        "POST /_matrix/client/v3/knock/{roomIdOrAlias}": 403,
        "POST /_matrix/client/v3/rooms/{roomId}/forget": 400,
        "POST /_matrix/client/v3/rooms/{roomId}/kick": 403,
        "POST /_matrix/client/v3/rooms/{roomId}/unban": 403,
        "PUT /_matrix/client/v3/directory/room/{roomAlias}": 409,
        // There is no room version “text”.
        "POST /_matrix/client/v3/rooms/{roomId}/upgrade": 400,
        // Alice is an administrator, whom nobody locks, herself least of all.
        "GET /_matrix/client/v1/admin/lock/{userId}": 403,
        "PUT /_matrix/client/v1/admin/lock/{userId}": 403,
        "GET /_matrix/client/v1/admin/suspend/{userId}": 403,
        "PUT /_matrix/client/v1/admin/suspend/{userId}": 403,
        // “text” is nobody's refresh token.
        "POST /_matrix/client/v3/refresh": 401,
        // Nobody has an e-mail address or a telephone number here.
        "POST /_matrix/client/v3/account/3pid": 403,
        "POST /_matrix/client/v3/account/3pid/add": 403,
        "POST /_matrix/client/v3/account/3pid/bind": 403,
        "POST /_matrix/client/v3/account/3pid/email/requestToken": 403,
        "POST /_matrix/client/v3/account/3pid/msisdn/requestToken": 403,
        "POST /_matrix/client/v3/account/password/email/requestToken": 400,
        "POST /_matrix/client/v3/account/password/msisdn/requestToken": 400,
        "POST /_matrix/client/v3/register/email/requestToken": 403,
        "POST /_matrix/client/v3/register/msisdn/requestToken": 403,
        // No network is bridged here, and Alice is no application service.
        "GET /_matrix/client/v3/thirdparty/location": 400,
        "GET /_matrix/client/v3/thirdparty/location/{protocol}": 404,
        "GET /_matrix/client/v3/thirdparty/protocol/{protocol}": 404,
        "GET /_matrix/client/v3/thirdparty/user": 400,
        "GET /_matrix/client/v3/thirdparty/user/{protocol}": 404,
        "POST /_matrix/client/v1/appservice/{appserviceId}/ping": 403,
        "PUT /_matrix/client/v3/directory/list/appservice/{networkId}/{roomId}": 403,
        // Alice's file has its content.
        "PUT /_matrix/media/v3/upload/{serverName}/{mediaId}": 409,
        // There must be a master key, of a form that the table can't say.
        "POST /_matrix/client/v3/keys/device_signing/upload": 400,
    ]
}
