import Homeserver
import MatrixCore
import RoostTestSupport
import Testing

@testable import HomeserverHTTP

/// Each operation between servers is asked for what is right and what is wrong by the specification's facts, by a peer that is in a
/// room here; every answer is held against them.
@Suite("Conformance of the Server-Server API")
struct FederationConformanceTests {
    private struct Scene {
        let server: TestServer
        let network = TestNetwork()
        let alice: Requester
        let peer: HostileServer
        let room: RoomID
        let place: HostileServer.Place
        var name: ServerName { server.configuration.serverName }
        let table = ConformanceTable.federation

        init(version: String = "11") async throws {
            let name = ServerName(unchecked: "here.example")
            let clock = ManualSurroundings()
            server = try await TestServer(clock: clock, transport: network.transport(of: name)) {
                $0.serverName = name
                $0.policyServer.enabled = true
            }
            network.connect(server.homeserver)
            alice = try await server.user("alice")
            peer = HostileServer("peer.example", on: network, clock: clock)
            room = try await server.room(of: alice, version: version) {
                $0.aliasName = "alias"
                $0.isPublished = true
                $0.name = "A room"
            }
            place = try await peer.join(room, as: peer.user("paul"), at: name)
        }

        var endpoints: [Endpoint] { FederationAPI(server.homeserver).endpoints }

        func quote(_ text: String) -> String { HostileServer.quote(text) }

        /// Asks, signed or not, and holds the answer against the facts.
        @discardableResult
        func ask(
            _ operation: String, _ target: String, _ body: JSON? = nil, isSigned: Bool = true,
            sourceLocation: SourceLocation = #_sourceLocation
        ) async throws -> (status: Int, root: JSONView?) {
            let parts = operation.split(separator: " ")
            let operation = try #require(
                table.operations.first { $0.name == operation }, sourceLocation: sourceLocation)
            let method = String(parts[0])
            var headers: [(name: String, value: String)] = []
            let content = try body?.canonical()
            if isSigned {
                let signature = RequestSignature(
                    signing: method, target: target, content: content, from: peer.name, to: name, with: peer.key)
                headers.append(("Authorization", signature.header))
            }
            let answer = try await network.transport(of: peer.name).send(
                ServerRequest(
                    method: method, destination: name, target: target, headers: headers, body: content,
                    timeout: 10_000, mostBytes: 10 << 20))
            let isFile = answer.header("content-type")?.hasPrefix("multipart/") == true
            for violation in operation.violations(status: answer.status, body: answer.body, isFile: isFile)
            where !(violation.path == "status" && answer.status == 400) {
                Issue.record("\(operation.name), \(answer.status): \(violation)", sourceLocation: sourceLocation)
            }
            return (answer.status, (try? JSONDocument(parsing: answer.body, limits: .envelope))?.root)
        }

        /// A member event of a user of the peer's, as the template wants it.
        func member(_ kind: String, of user: UserID, in room: RoomID) async throws -> Event {
            let answer = try await ask(
                "GET /_matrix/federation/v1/make_\(kind)/{roomId}/{userId}",
                "/_matrix/federation/v1/make_\(kind)/\(quote(room.string))/\(quote(user.string))?ver=11")
            #expect(answer.status == 200)
            let event = try #require(answer.root?["event"])
            func ids(_ field: String) -> [EventID] {
                event[field]?.elements.compactMap { $0.string.flatMap { EventID($0) } } ?? []
            }
            return try EventTemplate(
                version: .v11, roomID: room, sender: user, type: "m.room.member", stateKey: user.string,
                content: ["membership": .string(kind)], prevEvents: ids("prev_events"), authEvents: ids("auth_events"),
                depth: event["depth"]?.integer ?? 1, originServerTS: server.clock.now
            ).signed(by: peer.key, as: peer.name)
        }
    }

    private static let prefix = "/_matrix/federation/v1"

    @Test("every operation that is implemented gives a right answer to a right question")
    func right() async throws {
        let scene = try await Scene()
        let recorded = Asked()
        func right(
            _ operation: String, _ target: String, _ body: JSON? = nil, isSigned: Bool = true,
            sourceLocation: SourceLocation = #_sourceLocation
        ) async throws {
            let answer = try await scene.ask(
                operation, target, body, isSigned: isSigned, sourceLocation: sourceLocation)
            #expect(answer.status == 200, "\(operation)", sourceLocation: sourceLocation)
            recorded.names.insert(operation)
        }
        let prefix = Self.prefix, room = scene.quote(scene.room.string)
        let alice = scene.alice.userID, tip = scene.place.tip.eventID
        let event = scene.quote(tip.string)

        try await right("GET /_matrix/key/v2/server", "/_matrix/key/v2/server", isSigned: false)
        try await right("GET /_matrix/key/v2/query/{serverName}", "/_matrix/key/v2/query/peer.example", isSigned: false)
        try await right(
            "POST /_matrix/key/v2/query", "/_matrix/key/v2/query",
            ["server_keys": ["peer.example": ["ed25519:evil": ["minimum_valid_until_ts": 1]]]], isSigned: false)
        try await right("GET \(prefix)/version", "\(prefix)/version", isSigned: false)
        let secret = try await scene.server.homeserver.accounts.makeOpenIDToken(for: scene.alice)
        try await right(
            "GET \(prefix)/openid/userinfo", "\(prefix)/openid/userinfo?access_token=\(secret)", isSigned: false)

        try await right("GET \(prefix)/event/{eventId}", "\(prefix)/event/\(event)")
        try await right("GET \(prefix)/state/{roomId}", "\(prefix)/state/\(room)?event_id=\(event)")
        try await right("GET \(prefix)/state_ids/{roomId}", "\(prefix)/state_ids/\(room)?event_id=\(event)")
        try await right("GET \(prefix)/event_auth/{roomId}/{eventId}", "\(prefix)/event_auth/\(room)/\(event)")
        try await right("GET \(prefix)/backfill/{roomId}", "\(prefix)/backfill/\(room)?v=\(event)&limit=10")
        try await right(
            "POST \(prefix)/get_missing_events/{roomId}", "\(prefix)/get_missing_events/\(room)",
            ["earliest_events": [], "latest_events": [.string(tip.string)], "limit": 10, "min_depth": 0])
        try await right(
            "GET \(prefix)/timestamp_to_event/{roomId}", "\(prefix)/timestamp_to_event/\(room)?ts=0&dir=f")
        let said = try scene.peer.event(
            "m.room.message", content: ["msgtype": "m.text", "body": "x"], by: scene.peer.user("paul"), in: scene.place)
        try await right(
            "PUT \(prefix)/send/{txnId}", "\(prefix)/send/one",
            [
                "origin": "peer.example", "origin_server_ts": 1, "pdus": [said.root.json],
                "edus": [["edu_type": "m.typing", "content": [:]]],
            ])

        // Members come, go, knock and are invited.
        let joining = try await scene.member("join", of: scene.peer.user("petra"), in: scene.room)
        recorded.names.insert("GET \(prefix)/make_join/{roomId}/{userId}")
        try await right(
            "PUT /_matrix/federation/v2/send_join/{roomId}/{eventId}",
            "/_matrix/federation/v2/send_join/\(room)/\(scene.quote(joining.eventID.string))", joining.root.json)
        let leaving = try await scene.member("leave", of: scene.peer.user("petra"), in: scene.room)
        recorded.names.insert("GET \(prefix)/make_leave/{roomId}/{userId}")
        try await right(
            "PUT /_matrix/federation/v2/send_leave/{roomId}/{eventId}",
            "/_matrix/federation/v2/send_leave/\(room)/\(scene.quote(leaving.eventID.string))", leaving.root.json)
        let door = try await scene.server.room(of: scene.alice, version: "11") {
            $0.preset = .privateChat
            $0.initialState = [.init(key: .joinRules, content: ["join_rule": "knock"])]
        }
        let knock = try await scene.member("knock", of: scene.peer.user("petra"), in: door)
        recorded.names.insert("GET \(prefix)/make_knock/{roomId}/{userId}")
        try await right(
            "PUT \(prefix)/send_knock/{roomId}/{eventId}",
            "\(prefix)/send_knock/\(scene.quote(door.string))/\(scene.quote(knock.eventID.string))", knock.root.json)
        let hash = EventID(unchecked: "$" + String(repeating: "A", count: 43))
        let elsewhere = RoomID(unchecked: "!elsewhere:peer.example")
        func invitation(_ version: RoomVersion) throws -> Event {
            let isAssigned = version.rules.eventIDs == .assigned
            let before = isAssigned ? EventID(unchecked: "$before:peer.example") : hash
            var template = EventTemplate(
                version: version, roomID: elsewhere, sender: scene.peer.user("paul"), type: "m.room.member",
                stateKey: alice.string, content: ["membership": "invite"], prevEvents: [before], authEvents: [before],
                depth: 1, originServerTS: scene.server.clock.now,
                eventID: isAssigned ? EventID(unchecked: "$invitation:peer.example") : nil,
                members: ["origin": .string(scene.peer.name.string)])
            template.referenceHashes = [before: [UInt8](repeating: 1, count: 32)]
            return try template.signed(by: scene.peer.key, as: scene.peer.name)
        }
        let invite = try invitation(.v11), old = try invitation(.v1)
        try await right(
            "PUT /_matrix/federation/v2/invite/{roomId}/{eventId}",
            "/_matrix/federation/v2/invite/\(scene.quote(elsewhere.string))/\(scene.quote(invite.eventID.string))",
            ["room_version": "11", "event": invite.root.json, "invite_room_state": []])
        try await right(
            "PUT \(prefix)/invite/{roomId}/{eventId}",
            "\(prefix)/invite/\(scene.quote(elsewhere.string))/\(scene.quote(old.eventID.string))", old.root.json)
        let identity = SigningKey(seed: [UInt8](repeating: 5, count: 32), version: "0")!
        _ = try await scene.server.homeserver.sending.setState(
            StateKey("m.room.third_party_invite", "token"),
            content: [
                "display_name": "p…", "public_key": .string(Base64.encode(identity.publicKey)),
                "key_validity_url": "https://id.example",
            ], in: door, by: scene.alice)
        let pia = scene.peer.user("pia")
        let signed = try identity.sign(
            ["mxid": .string(pia.string), "token": "token"], as: ServerName(unchecked: "id.example"))
        // The peer signs invitations of its users.
        let (own, key) = (scene.peer.name, scene.peer.key)
        scene.network.forge { request in
            guard request.destination == own, request.target.contains("/v2/invite/"),
                let view = (try? JSONDocument(parsing: request.body ?? []))?.root["event"],
                let event = try? Event(receiving: Array(view.raw), version: .v11),
                let both = try? event.addingSignature(by: key, as: own)
            else { return nil }
            let answer: JSON = ["event": both.root.json]
            return ServerResponse(status: 200, body: answer.encoded())
        }
        try await right(
            "PUT \(prefix)/exchange_third_party_invite/{roomId}",
            "\(prefix)/exchange_third_party_invite/\(scene.quote(door.string))",
            [
                "type": "m.room.member", "room_id": .string(door.string), "sender": .string(alice.string),
                "state_key": .string(pia.string),
                "content": [
                    "membership": "invite", "third_party_invite": ["display_name": "p…", "signed": signed],
                ],
            ])
        try await right(
            "PUT \(prefix)/3pid/onbind", "\(prefix)/3pid/onbind",
            ["address": "a@example.org", "medium": "email", "mxid": .string(alice.string), "invites": []],
            isSigned: false)

        // What there is to be asked for.
        try await right(
            "GET \(prefix)/query/directory",
            "\(prefix)/query/directory?room_alias=\(scene.quote("#alias:here.example"))")
        try await right(
            "GET \(prefix)/query/profile", "\(prefix)/query/profile?user_id=\(scene.quote(alice.string))")
        try await right("GET \(prefix)/publicRooms", "\(prefix)/publicRooms?limit=10")
        try await right(
            "POST \(prefix)/publicRooms", "\(prefix)/publicRooms",
            ["limit": 10, "filter": ["generic_search_term": "room"]])
        try await right("GET \(prefix)/hierarchy/{roomId}", "\(prefix)/hierarchy/\(room)?suggested_only=false")
        try await right(
            "GET \(prefix)/user/devices/{userId}", "\(prefix)/user/devices/\(scene.quote(alice.string))")
        try await right(
            "POST \(prefix)/user/keys/query", "\(prefix)/user/keys/query",
            ["device_keys": [alice.string: []]])
        try await right(
            "POST \(prefix)/user/keys/claim", "\(prefix)/user/keys/claim",
            ["one_time_keys": [alice.string: [scene.alice.deviceID: "signed_curve25519"]]])
        let file = try await scene.server.upload(Pictures.png(40, 40), type: "image/png", by: scene.alice)
        try await right("GET \(prefix)/media/download/{mediaId}", "\(prefix)/media/download/\(file)")
        try await right(
            "GET \(prefix)/media/thumbnail/{mediaId}",
            "\(prefix)/media/thumbnail/\(file)?width=32&height=32&method=crop")

        // A room of which the server is the policy server.
        let guarded = try await scene.server.room(of: scene.alice, version: "11")
        let policyKey = try #require(scene.server.homeserver.policySigning?.publicKey)
        _ = try await scene.server.homeserver.sending.setState(
            .policy, content: ["via": .string(scene.name.string), "public_keys": ["ed25519": .string(policyKey)]],
            in: guarded, by: scene.alice)
        let there = try await scene.peer.join(guarded, as: scene.peer.user("paul"), at: scene.name)
        let asked = try scene.peer.event(
            "m.room.message", content: ["msgtype": "m.text", "body": "x"], by: scene.peer.user("paul"), in: there)
        try await right("POST /_matrix/policy/v1/sign", "/_matrix/policy/v1/sign", asked.root.json)

        let implemented = Set(scene.table.implemented(by: scene.endpoints).map(\.name))
        #expect(implemented.subtracting(recorded.names).sorted() == [], "implemented, and not asked here")
        #expect(recorded.names.subtracting(implemented).sorted() == [])
        await scene.server.close()
    }

    /// The operations that were asked.
    private final class Asked {
        var names: Set<String> = []
    }

    @Test("a question that is not signed, lacks something or holds something else is refused as the specification says")
    func wrong() async throws {
        let scene = try await Scene()
        for operation in scene.table.implemented(by: scene.endpoints) {
            var path = operation.path
            for (name, value) in [
                ("roomId", scene.room.string), ("eventId", scene.place.tip.eventID.string),
                ("userId", scene.peer.user("paul").string), ("txnId", "t"), ("mediaId", "none"),
                ("serverName", "peer.example"),
            ] { path = path.replacing("{\(name)}", with: scene.quote(value)) }
            #expect(!path.contains("{"), "\(path)")
            let hasBody = operation.request != nil
            if operation.token == .signed {
                let answer = try await scene.ask(operation.name, path, hasBody ? [:] : nil, isSigned: false)
                #expect(answer.status == 401, "\(operation.name) unsigned")
                #expect(answer.root?["errcode"]?.isString("M_UNAUTHORIZED") == true)
            }
            // Without what it must have.
            if operation.queryParameters.contains(where: \.isRequired) {
                let answer = try await scene.ask(operation.name, path, hasBody ? [:] : nil)
                #expect((400..<500).contains(answer.status), "\(operation.name) without its query")
            }
            guard let request = operation.request else { continue }
            // Bodies of every other kind, and with every member that has a type of another one.
            var bodies: [JSON] = [[], "text", 5, .null, true]
            if case .object(let facts) = request {
                for (name, _) in facts.fields {
                    for other in [.integer(5), .string("x"), .array([.integer(1)]), .object(["x": 1])] as [JSON] {
                        bodies.append([name: other])
                    }
                }
            }
            for body in bodies {
                let answer = try await scene.ask(operation.name, path, body)
                #expect(answer.status < 500, "\(operation.name) with \(body)")
                if body.objectValue == nil { #expect(answer.status == 400, "\(operation.name) with \(body)") }
            }
        }
        await scene.server.close()
    }

    @Test("a query of a type that the specification doesn't have is unrecognized")
    func unknownQuery() async throws {
        let scene = try await Scene()
        let target = "\(Self.prefix)/query/weather"
        let signature = RequestSignature(
            signing: "GET", target: target, content: nil, from: scene.peer.name, to: scene.name, with: scene.peer.key)
        let answer = try await scene.network.transport(of: scene.peer.name).send(
            ServerRequest(
                method: "GET", destination: scene.name, target: target,
                headers: [("Authorization", signature.header)], timeout: 10_000, mostBytes: 1_000))
        #expect(answer.status == 404)
        let root = try JSONDocument(parsing: answer.body).root
        #expect(root["errcode"]?.isString("M_UNRECOGNIZED") == true)
        await scene.server.close()
    }

    @Test("an identifier that is none, or that nobody has, is refused, and never with a failure of this server")
    func identifiers() async throws {
        let scene = try await Scene()
        let odd = [
            "", "x", "!x", "$x", "@x", "!nobody:here.example", "$nobody:here.example", "@nobody:here.example", "\u{0}",
            "ü",
        ]
        for operation in scene.table.implemented(by: scene.endpoints) where operation.path.contains("{") {
            for text in odd {
                var path = operation.path
                for parameter in operation.pathParameters {
                    path = path.replacing("{\(parameter.name)}", with: scene.quote(text))
                }
                for parameter in operation.queryParameters where parameter.isRequired {
                    path += (path.contains("?") ? "&" : "?") + "\(parameter.name)=\(scene.quote(text))"
                }
                let answer = try await scene.ask(operation.name, path, operation.request == nil ? nil : [:])
                #expect(answer.status < 500, "\(operation.name) with “\(text)”: \(answer.status)")
            }
        }
        await scene.server.close()
    }
}
