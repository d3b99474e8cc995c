import Homeserver
import MatrixCore
import NIOHTTP1
import RoostTestSupport
import Testing

@testable import HomeserverHTTP

/// Two people who have the same kinds of things, and requests by one of them, Alice, made from the table of facts.
struct GeneratedInputScene {
    let client: ClientSession
    /// The operations of the table that the server implements.
    let operations: [ConformanceTable.Operation]
    let alice: Person
    let bob: Person
    let bodies: GeneratedBodies

    /// What a person has.
    struct Person {
        let token: String
        /// Values of path parameters that name this person's own things, by the parameter's name.
        let own: [String: String]
    }

    init() async throws {
        client = ClientSession(try await TestServer(configure: Self.configure))
        operations = ConformanceTable.shared.implemented(by: ClientAPI(client.server.homeserver).endpoints)
        // Bob comes first and makes one filter more, so that his filter's ID is none of Alice's.
        bob = await Self.person("bob", filters: 2, on: client)
        alice = await Self.person("alice", filters: 1, on: client)
        // Otherwise nothing of what administrators may do could be asked for.
        _ = try await client.server.homeserver.accounts.setAdmin(true, of: "alice")
        bodies = GeneratedBodies(identifiers: [
            "mx-user-id": "@bob:localhost", "mx-room-id": alice.own["roomId"] ?? "",
            "mx-event-id": alice.own["eventId"] ?? "", "mx-room-alias": "#alice:localhost",
            "mx-mxc-uri": "mxc://localhost/none",
        ])
    }

    private static func configure(_ configuration: inout Configuration) {
        configuration.media.unauthenticatedBefore = .max
        configuration.support.page = "https://localhost/help"
        configuration.policyServer.enabled = true
    }

    private static func person(_ name: String, filters: Int, on client: ClientSession) async -> Person {
        let token = await client.register(name)
        let user = "@\(name):localhost"
        func text(_ answer: ClientSession.Answer, _ key: String) -> String { answer.json[key]?.stringValue ?? "" }
        let room = text(
            await client.ask(
                .POST, "/_matrix/client/v3/createRoom", token,
                ["name": "Den", "topic": .string(name), "room_alias_name": .string(name)]), "room_id")
        let base = "/_matrix/client/v3"
        let event = await client.ask(.PUT, "\(base)/rooms/\(room)/send/m.room.message/first", token, ["body": "hello"])
        var filter = ""
        for limit in 1...filters {
            filter = text(
                await client.ask(
                    .POST, "\(base)/user/\(user)/filter", token,
                    ["room": ["timeline": ["limit": .integer(Int64(limit))]]]), "filter_id")
        }
        _ = await client.ask(.PUT, "\(base)/user/\(user)/account_data/org.example.note", token, ["of": .string(name)])
        _ = await client.ask(
            .PUT, "\(base)/user/\(user)/rooms/\(room)/account_data/org.example.note", token, ["of": .string(name)])
        _ = await client.ask(.PUT, "\(base)/user/\(user)/rooms/\(room)/tags/u.\(name)", token, ["order": 0.5])
        _ = await client.ask(
            .PUT, "\(base)/pushrules/global/override/\(name)", token, ["actions": ["notify"], "conditions": []])
        _ = await client.ask(.PUT, "\(base)/profile/\(user)/displayname", token, ["displayname": .string(name)])
        let media = await client.ask(.POST, "/_matrix/media/v3/upload", token: token, raw: Pictures.png(2, 2))
        // As with filters: Bob's backup has a version that Alice hasn't got.
        var backup = ""
        for _ in 1...filters {
            backup = text(
                await client.ask(
                    .POST, "\(base)/room_keys/version", token,
                    ["algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": [:]]), "version")
        }
        _ = await client.ask(
            .PUT, "\(base)/room_keys/keys/\(room)/session-of-\(name)?version=\(backup)", token,
            [
                "first_message_index": 1, "forwarded_count": 0, "is_verified": true,
                "session_data": ["of": .string(name)],
            ])
        let sync = await client.ask(.GET, "\(base)/sync", token)
        let device = await client.ask(.GET, "\(base)/account/whoami", token)
        return Person(
            token: token,
            own: [
                "userId": user, "roomId": room, "roomIdOrAlias": room, "eventId": text(event, "event_id"),
                "deviceId": text(device, "device_id"), "filterId": filter, "roomAlias": "#\(name):localhost",
                "serverName": "localhost",
                "mediaId": text(media, "content_uri").split(separator: "/").last.map(String.init) ?? "",
                "type": "org.example.note", "tag": "u.\(name)", "kind": "override", "ruleId": name,
                "eventType": "m.room.topic", "keyName": "displayname", "receiptType": "m.read",
                "relType": "m.annotation", "txnId": "second", "fileName": "file", "version": backup,
                "sessionId": "session-of-\(name)", "appserviceId": "bridge", "networkId": "net", "protocol": "irc",
                "from": text(sync, "next_batch"), "to": text(sync, "next_batch"),
            ])
    }

    /// Identifiers of the right form that name nothing, by the parameter's name.
    static let unknown = [
        "userId": "@nobody:localhost", "roomId": "!nowhere:localhost", "roomIdOrAlias": "!nowhere:localhost",
        "eventId": "$nothing", "deviceId": "NODEVICE", "filterId": "4711", "roomAlias": "#nowhere:localhost",
        "mediaId": "nomedia", "ruleId": "norule", "version": "4711", "sessionId": "nosession",
    ]

    /// The parameters whose values have a form that can be wrong.
    static let formed = ["userId", "roomId", "roomIdOrAlias", "eventId", "roomAlias"]

    /// The path of an operation with Alice's own things, some of them replaced.
    func path(_ operation: ConformanceTable.Operation, replacing replaced: [String: String] = [:]) -> String {
        operation.path.split(separator: "/", omittingEmptySubsequences: false).map { segment in
            guard segment.hasPrefix("{") else { return String(segment) }
            let name = String(segment.dropFirst().dropLast())
            return Self.encoded(replaced[name] ?? alice.own[name] ?? "")
        }.joined(separator: "/")
    }

    /// The query with all required parameters at allowed values, some replaced, or left out where the new value is nil.
    func query(
        _ operation: ConformanceTable.Operation, replacing replaced: [String: String?] = [:], of person: Person? = nil
    ) -> String {
        let person = person ?? alice
        let parameters = operation.queryParameters.compactMap { parameter -> String? in
            let value: String?
            if let replacement = replaced[parameter.name] {
                value = replacement
            } else {
                // Versions of backups and tokens of syncs can't be made up.
                let own = ["version", "from", "to"].contains(parameter.name) ? person.own[parameter.name] : nil
                value = parameter.isRequired ? own ?? Self.text(bodies.sample(parameter.fact)) : nil
            }
            return value.map { "\(parameter.name)=\(Self.encoded($0))" }
        }
        return parameters.isEmpty ? "" : "?" + parameters.joined(separator: "&")
    }

    /// The body that the operation wants at least; nil for none.
    func body(_ operation: ConformanceTable.Operation) -> JSON? {
        operation.takesJSON ? operation.request.map(bodies.sample) : nil
    }

    func ask(
        _ operation: ConformanceTable.Operation, path: String? = nil, query: String? = nil, _ body: JSON? = nil,
        raw: [UInt8]? = nil
    ) async -> ClientSession.Answer {
        await client.ask(
            HTTPMethod(rawValue: operation.method), (path ?? self.path(operation)) + (query ?? self.query(operation)),
            token: alice.token, body ?? self.body(operation), raw: raw)
    }

    /// What both people see of everything they have: the answer of each operation that only reads.
    func snapshot() async -> [String: JSON] {
        var seen: [String: JSON] = [:]
        // Reading by sync shows people as being there: both are, before anything is compared.
        for person in [alice, bob] { _ = await client.ask(.GET, "/_matrix/client/v3/sync", token: person.token) }
        for person in [alice, bob] {
            for operation in operations where operation.method == "GET" {
                let answer = await client.ask(
                    .GET, path(operation, replacing: person.own) + query(operation, of: person), token: person.token)
                var json = answer.json
                // Places in the stream of all changes move with every write, also with those that nobody sees.
                for key in ["start", "end", "next_batch", "last_active_ago"] where json[key] != nil { json[key] = nil }
                seen["\(operation.name) by \(person.own["userId"] ?? "")"] = json
            }
        }
        return seen
    }

    static func text(_ json: JSON) -> String { json.stringValue ?? String(decoding: json.encoded(), as: UTF8.self) }

    static func encoded(_ text: String) -> String {
        text.utf8.reduce(into: "") { encoded, byte in
            let isPlain =
                (0x30...0x39).contains(byte) || (0x41...0x5A).contains(byte) || (0x61...0x7A).contains(byte)
                || [0x2D, 0x2E, 0x5F, 0x7E].contains(byte)
            let digits = Array("0123456789ABCDEF")
            encoded += isPlain ? String(UnicodeScalar(byte)) : "%\(digits[Int(byte >> 4)])\(digits[Int(byte & 15)])"
        }
    }
}

extension ConformanceTable.Operation {
    var takesJSON: Bool {
        switch request {
        case nil, .bytes: false
        default: true
        }
    }
}
