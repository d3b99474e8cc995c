import MatrixCore
import NIOHTTP1
import Testing

@testable import HomeserverHTTP

/// Every operation that is implemented, asked with everything that is wrong by the table of facts.
///
/// Nothing of it may fail inwardly, all of it must be refused with a code that fits, and nothing may change by it.
@Suite("Bad input, generated from the specification's facts")
struct GeneratedInputTests {
    @Test("without a token and with a wrong one, operations that need one refuse")
    func tokens() async throws {
        let scene = try await GeneratedInputScene()
        for operation in scene.operations where operation.token != .none {
            let target = scene.path(operation) + scene.query(operation)
            let method = HTTPMethod(rawValue: operation.method)
            let wrong = await scene.client.ask(method, target, token: "nobody's", scene.body(operation))
            #expect(wrong.status == 401 && wrong.code == "M_UNKNOWN_TOKEN", "\(operation.name): \(wrong.summary)")
            guard operation.token == .required else { continue }
            let without = await scene.client.ask(method, target, token: nil, scene.body(operation))
            #expect(without.status == 401 && without.code == "M_MISSING_TOKEN", "\(operation.name): \(without.summary)")
        }
        #expect(scene.operations.count > 60)
        await scene.client.server.close()
    }

    @Test("bodies that aren't JSON, aren't objects or are too large are refused and change nothing")
    func malformedBodies() async throws {
        let scene = try await GeneratedInputScene()
        let before = await scene.snapshot()
        for operation in scene.operations where operation.takesJSON {
            for broken in ["{", "{\"a\":}", "{} {}", "\u{0}", "nonsense"] {
                let answer = await scene.ask(operation, raw: Array(broken.utf8))
                expect(answer, operation, broken, codes: ["M_NOT_JSON"])
            }
            expect(await scene.ask(operation, raw: [0x22, 0xFF, 0x22]), operation, "not UTF-8", codes: ["M_NOT_JSON"])
            for other in ["[]", "[{}]", "null", "7", "\"text\"", "true"] {
                let answer = await scene.ask(operation, raw: Array(other.utf8))
                expect(answer, operation, other, codes: ["M_BAD_JSON"])
            }
            var large = scene.body(operation) ?? [:]
            large["org.example.padding"] = .string(String(repeating: "x", count: Self.limit(of: operation)))
            let answer = await scene.ask(operation, large)
            #expect(answer.status == 413 && answer.code == "M_TOO_LARGE", "\(operation.name): \(answer.summary)")
        }
        await expectNoChange(since: before, in: scene)
        await scene.client.server.close()
    }

    /// The largest body of an operation.
    private static func limit(of operation: ConformanceTable.Operation) -> Int {
        if operation.path.contains("/sendToDevice/") { return ClientAPI.toDeviceLimit }
        if operation.path.contains("/room_keys/keys"), operation.method == "PUT" { return ClientAPI.keyBackupLimit }
        return Request.defaultJSONLimit
    }

    @Test("missing members, wrong types and values out of range are refused and change nothing")
    func members() async throws {
        let scene = try await GeneratedInputScene()
        let before = await scene.snapshot()
        var tried = 0
        for operation in scene.operations where operation.takesJSON {
            for mutation in scene.bodies.mutations(of: operation.request ?? .any) {
                guard !Tolerated.contains(operation, mutation.what) else { continue }
                let answer = await scene.ask(operation, mutation.body)
                expect(
                    answer, operation, mutation.what, codes: ["M_BAD_JSON", "M_INVALID_PARAM", "M_MISSING_PARAM"])
                tried += 1
            }
        }
        #expect(tried > 300)
        await expectNoChange(since: before, in: scene)
        await scene.client.server.close()
    }

    @Test("missing query parameters and values they can't have are refused and change nothing")
    func queries() async throws {
        let scene = try await GeneratedInputScene()
        let before = await scene.snapshot()
        for operation in scene.operations {
            for parameter in operation.queryParameters {
                var wrong: [String?] = parameter.isRequired ? [nil] : []
                switch parameter.fact {
                case .integer: wrong += ["text", "1.5", "", "99999999999999999999"]
                case .boolean, .enumeration: wrong += ["no such value", ""]
                default:
                    // Any text is of the right type; it may still be one that the operation can't make sense of.
                    let answer = await scene.ask(
                        operation, query: scene.query(operation, replacing: [parameter.name: "\u{0}no such thing"]))
                    #expect(answer.status < 500, "\(operation.name) \(parameter.name): \(answer.summary)")
                }
                for value in wrong {
                    let what = "?\(parameter.name)=\(value ?? "none")"
                    guard !Tolerated.contains(operation, what) else { continue }
                    let answer = await scene.ask(
                        operation, query: scene.query(operation, replacing: [parameter.name: value]))
                    expect(answer, operation, what, codes: ["M_MISSING_PARAM", "M_INVALID_PARAM"])
                }
            }
        }
        await expectNoChange(since: before, in: scene)
        await scene.client.server.close()
    }

    @Test("what isn't there, isn't named rightly or is somebody else's can't be read or changed")
    func objects() async throws {
        let scene = try await GeneratedInputScene()
        let before = await scene.snapshot()
        for operation in scene.operations {
            for parameter in operation.pathParameters {
                let name = parameter.name
                var wrong: [(what: String, value: String)] = []
                if let unknown = GeneratedInputScene.unknown[name] {
                    wrong.append(("unknown", unknown))
                    wrong.append(("somebody else's", scene.bob.own[name] ?? ""))
                }
                if GeneratedInputScene.formed.contains(name) {
                    wrong += [("malformed", "nonsense"), ("too long", unknownSigil(name) + longText)]
                }
                if case .enumeration = parameter.fact { wrong.append(("out of range", "no such value")) }
                for (what, value) in wrong {
                    let what = "\(name) \(what)"
                    guard !Tolerated.contains(operation, what) else { continue }
                    let answer = await scene.ask(operation, path: scene.path(operation, replacing: [name: value]))
                    #expect(
                        [400, 403, 404].contains(answer.status)
                            || operation.answers[answer.status]?.body != nil
                                && answer.status >= 400,
                        "\(operation.name), \(what): \(answer.summary)")
                    #expect(
                        answer.json["flows"] != nil
                            || operation.codes(for: answer.status).contains(answer.code ?? "none"),
                        "\(operation.name), \(what): \(answer.summary)")
                }
            }
        }
        await expectNoChange(since: before, in: scene)
        await scene.client.server.close()
    }

    @Test("what a body names isn't there or is somebody else's: nothing of it can be changed")
    func named() async throws {
        let scene = try await GeneratedInputScene()
        let before = await scene.snapshot()
        // Users aren't anybody's, and whoever knows an event's ID may put a receipt on it.
        let others = ["mx-room-id": "roomId", "mx-room-alias": "roomAlias"]
        var tried = 0
        for operation in scene.operations where operation.takesJSON {
            guard case .object(let object) = operation.request else { continue }
            for (field, fact) in object.fields {
                guard case .identifier(let kind) = fact, let name = others[kind] else { continue }
                for value in [GeneratedInputScene.unknown[name], scene.bob.own[name]] {
                    var body = scene.body(operation) ?? [:]
                    body[field] = value.map { .string($0) }
                    let answer = await scene.ask(
                        operation, path: scene.path(operation, replacing: ["roomAlias": "#another:localhost"]), body)
                    #expect([400, 403, 404].contains(answer.status), "\(operation.name) \(field): \(answer.summary)")
                    tried += 1
                }
            }
        }
        #expect(tried > 0)
        await expectNoChange(since: before, in: scene)
        await scene.client.server.close()
    }

    @Test("what is taken all the same is about operations and parameters that there are")
    func tolerated() async throws {
        let scene = try await GeneratedInputScene()
        for (name, what) in Tolerated.all {
            let operation = try #require(scene.operations.first { $0.name == name }, "\(name) isn't implemented")
            let known =
                scene.bodies.mutations(of: operation.request ?? .any).map(\.what)
                + operation.queryParameters.map { "?\($0.name)" }
                + operation.pathParameters.flatMap { ["\($0.name) unknown", "\($0.name) somebody else's"] }
            #expect(known.contains { $0.hasPrefix(what) }, "\(name) has no “\(what)”")
        }
        await scene.client.server.close()
    }

    private let longText = String(repeating: "x", count: 300) + ":localhost"

    private func unknownSigil(_ parameter: String) -> String {
        GeneratedInputScene.unknown[parameter].map { String($0.prefix(1)) } ?? ""
    }

    private func expect(
        _ answer: ClientSession.Answer, _ operation: ConformanceTable.Operation, _ what: String, codes: Set<String>,
        sourceLocation: SourceLocation = #_sourceLocation
    ) {
        let allowed = codes.union(operation.answers[400]?.codes ?? [])
        #expect(
            answer.status == 400 && allowed.contains(answer.code ?? "none"),
            "\(operation.name), \(what): \(answer.summary)", sourceLocation: sourceLocation)
    }

    private func expectNoChange(
        since before: [String: JSON], in scene: GeneratedInputScene, sourceLocation: SourceLocation = #_sourceLocation
    ) async {
        let after = await scene.snapshot()
        for (name, seen) in before {
            #expect(after[name] == seen, "\(name) has changed", sourceLocation: sourceLocation)
        }
    }
}

/// What the server takes although the table of facts doesn't, each with its reason.
private enum Tolerated {
    static let all: [(operation: String, what: String)] = [
        // Nobody is invited by an address here, whatever it is: M_THREEPID_DENIED comes before any look at it.
        ("POST /_matrix/client/v3/createRoom", ".invite_3pid[]"),
        ("POST /_matrix/client/v3/rooms/{roomId}/invite", ".address"),
        ("POST /_matrix/client/v3/rooms/{roomId}/invite", ".id_"),
        ("POST /_matrix/client/v3/rooms/{roomId}/invite", ".medium"),
        // … and so there are no invitations that a third party could have signed.
        ("POST /_matrix/client/v3/join/{roomIdOrAlias}", ".third_party_signed."),
        ("POST /_matrix/client/v3/join/{roomIdOrAlias}", ".third_party_signed = {}"),
        ("POST /_matrix/client/v3/rooms/{roomId}/join", ".third_party_signed."),
        ("POST /_matrix/client/v3/rooms/{roomId}/join", ".third_party_signed = {}"),
        // Putting makes what isn't there yet; the IDs of push rules are each person's own.
        ("PUT /_matrix/client/v3/directory/room/{roomAlias}", "roomAlias unknown"),
        ("PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}", "ruleId"),
        // Media, names in the directory and profiles are for all to read.
        ("GET /_matrix/client/v1/media/download/{serverName}/{mediaId}", "mediaId somebody else's"),
        ("GET /_matrix/client/v1/media/download/{serverName}/{mediaId}/{fileName}", "mediaId somebody else's"),
        ("GET /_matrix/client/v1/media/thumbnail/{serverName}/{mediaId}", "mediaId somebody else's"),
        ("GET /_matrix/media/v3/download/{serverName}/{mediaId}", "mediaId somebody else's"),
        ("GET /_matrix/media/v3/download/{serverName}/{mediaId}/{fileName}", "mediaId somebody else's"),
        ("GET /_matrix/media/v3/thumbnail/{serverName}/{mediaId}", "mediaId somebody else's"),
        ("GET /_matrix/client/v3/directory/list/room/{roomId}", "roomId somebody else's"),
        ("GET /_matrix/client/v3/directory/room/{roomAlias}", "roomAlias somebody else's"),
        ("GET /_matrix/client/v3/profile/{userId}", "userId somebody else's"),
        ("GET /_matrix/client/v3/profile/{userId}/{keyName}", "userId somebody else's"),
        // Alice is an administrator.
        ("GET /_matrix/client/v1/admin/lock/{userId}", "userId somebody else's"),
        ("PUT /_matrix/client/v1/admin/lock/{userId}", "userId somebody else's"),
        ("GET /_matrix/client/v1/admin/suspend/{userId}", "userId somebody else's"),
        ("PUT /_matrix/client/v1/admin/suspend/{userId}", "userId somebody else's"),
        ("GET /_matrix/client/v3/admin/whois/{userId}", "userId somebody else's"),
        // Rooms may be reported from outside; whether there is a user is told to nobody.
        ("POST /_matrix/client/v3/rooms/{roomId}/report", "roomId somebody else's"),
        ("POST /_matrix/client/v3/users/{userId}/report", "userId"),
        // These are one's own notes about a room; the specification doesn't ask for membership.
        ("GET /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags", "roomId somebody else's"),
        ("PUT /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags/{tag}", "roomId somebody else's"),
        ("DELETE /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags/{tag}", "roomId somebody else's"),
        ("PUT /_matrix/client/v3/user/{userId}/rooms/{roomId}/account_data/{type}", "roomId somebody else's"),
        // The event may be one that other servers have and this one hasn't yet.
        ("POST /_matrix/client/v3/rooms/{roomId}/receipt/{receiptType}/{eventId}", "eventId"),
        ("PUT /_matrix/client/v3/rooms/{roomId}/redact/{eventId}/{txnId}", "eventId unknown"),
        ("PUT /_matrix/client/v3/rooms/{roomId}/redact/{eventId}/{txnId}", "eventId somebody else's"),
        // Clients encrypt what they back up: an algorithm that the server doesn't know is nothing to it.
        ("POST /_matrix/client/v3/room_keys/version", ".algorithm = \"no such value\""),
        // A backup has keys of rooms and sessions that the server may never have heard of, or none of them.
        ("GET /_matrix/client/v3/room_keys/keys/{roomId}", "roomId unknown"),
        ("GET /_matrix/client/v3/room_keys/keys/{roomId}", "roomId somebody else's"),
        ("PUT /_matrix/client/v3/room_keys/keys/{roomId}", "roomId unknown"),
        ("PUT /_matrix/client/v3/room_keys/keys/{roomId}", "roomId somebody else's"),
        ("DELETE /_matrix/client/v3/room_keys/keys/{roomId}", "roomId unknown"),
        ("DELETE /_matrix/client/v3/room_keys/keys/{roomId}", "roomId somebody else's"),
        ("PUT /_matrix/client/v3/room_keys/keys/{roomId}/{sessionId}", "roomId unknown"),
        ("PUT /_matrix/client/v3/room_keys/keys/{roomId}/{sessionId}", "roomId somebody else's"),
        ("PUT /_matrix/client/v3/room_keys/keys/{roomId}/{sessionId}", "sessionId"),
        ("DELETE /_matrix/client/v3/room_keys/keys/{roomId}/{sessionId}", "roomId unknown"),
        ("DELETE /_matrix/client/v3/room_keys/keys/{roomId}/{sessionId}", "roomId somebody else's"),
        ("DELETE /_matrix/client/v3/room_keys/keys/{roomId}/{sessionId}", "sessionId"),
    ]

    static func contains(_ operation: ConformanceTable.Operation, _ what: String) -> Bool {
        // A filter that names what can't exist is true of nothing, which is what its maker asked for.
        let isFilter = operation.path.hasSuffix("/filter") || operation.path.hasSuffix("/search")
        if isFilter, what.hasSuffix(#"s[] = "no such value""#) { return true }
        return all.contains { $0.operation == operation.name && what.hasPrefix($0.what) }
    }
}
