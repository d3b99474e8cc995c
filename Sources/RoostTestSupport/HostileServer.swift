import Homeserver
import MatrixCore
import Synchronization

/// A server that speaks federation and does whatever a test wants: it signs with a key of its own, and sends and answers what no
/// honest server would.
public final class HostileServer: Sendable {
    public let name: ServerName
    public let key: SigningKey
    private let transport: any FederationTransport
    private let now: @Sendable () -> Int64

    /// - Parameters:
    ///   - seed: 32 bytes that its key is made of.
    ///   - now: milliseconds since 1970.
    public init(
        _ name: ServerName, seed: [UInt8], transport: any FederationTransport, now: @escaping @Sendable () -> Int64
    ) {
        self.name = name
        key = SigningKey(seed: seed, version: "evil")!
        self.transport = transport
        self.now = now
    }

    public convenience init(_ name: String, on network: TestNetwork, clock: ManualSurroundings, seed: UInt8 = 7) {
        let own = ServerName(unchecked: name)
        self.init(
            own, seed: [UInt8](repeating: seed, count: 32), transport: network.transport(of: own), now: { clock.now })
        let key = key
        network.forge { request in
            guard request.destination == own else { return nil }
            return Self.answer(request, key: key, now: clock.now)
        }
    }

    /// Answers those who ask for the key, and nothing else.
    public func answer(_ request: ServerRequest) -> ServerResponse? { Self.answer(request, key: key, now: now()) }

    private static func answer(_ request: ServerRequest, key: SigningKey, now: Int64) -> ServerResponse? {
        guard request.target == "/_matrix/key/v2/server" else { return nil }
        let document = try? ServerKeyDocument.make(
            for: request.destination, validUntil: now + 86_400_000, key: key, old: [])
        return ServerResponse(status: 200, body: document?.encoded() ?? [])
    }

    public func user(_ localpart: String) -> UserID { UserID(unchecked: "@\(localpart):\(name)") }

    /// Asks a server, signed with this one's key.
    @discardableResult
    public func ask(
        _ method: String, _ target: String, _ body: JSON? = nil, of server: ServerName
    ) async throws -> (status: Int, root: JSONView) {
        let content = try body?.canonical()
        let signature = RequestSignature(
            signing: method, target: target, content: content, from: name, to: server, with: key)
        let answer = try await transport.send(
            ServerRequest(
                method: method, destination: server, target: target, headers: [("Authorization", signature.header)],
                body: content, timeout: 10_000, mostBytes: 50 << 20))
        return (answer.status, try JSONDocument(parsing: answer.body, limits: .envelope).root)
    }

    /// Percent-encodes an identifier for a path.
    public static func quote(_ text: String) -> String {
        text.utf8.map { byte in
            let letter =
                (0x30...0x39).contains(byte) || (0x61...0x7A).contains(byte | 0x20) || byte == 0x2D || byte == 0x5F
            let hex = String(byte, radix: 16, uppercase: true)
            return letter ? String(UnicodeScalar(byte)) : "%" + (hex.count == 1 ? "0" + hex : hex)
        }.joined()
    }

    /// What a server that has joined knows of the room.
    public struct Place: Sendable {
        public let roomID: RoomID
        public let version: RoomVersion
        public let server: ServerName
        /// The state after the join.
        public var state: [StateKey: Event]
        public var tip: Event

        public func auth(_ keys: [StateKey]) -> [EventID] { keys.compactMap { state[$0]?.eventID } }
    }

    /// Has a user of this server join a room.
    public func join(_ room: RoomID, as user: UserID, at server: ServerName) async throws -> Place {
        let versions = RoomVersion.all.map { "ver=\($0.identifier)" }.joined(separator: "&")
        let path = "/_matrix/federation/v1/make_join/\(Self.quote(room.string))/\(Self.quote(user.string))?\(versions)"
        let proposal = try await ask("GET", path, of: server)
        guard let version = proposal.root["room_version"]?.string.flatMap({ RoomVersion.named($0) }),
            let template = proposal.root["event"]
        else { throw Failure(description: "make_join: \(String(decoding: proposal.root.raw, as: UTF8.self))") }
        let event = try EventTemplate(
            version: version, roomID: room, sender: user, type: "m.room.member", stateKey: user.string,
            content: ["membership": "join"],
            prevEvents: template["prev_events"]?.elements.compactMap { $0.string.flatMap { EventID($0) } } ?? [],
            authEvents: template["auth_events"]?.elements.compactMap { $0.string.flatMap { EventID($0) } } ?? [],
            depth: template["depth"]?.integer ?? 1, originServerTS: now()
        ).signed(by: key, as: name)
        let answer = try await ask(
            "PUT", "/_matrix/federation/v2/send_join/\(Self.quote(room.string))/\(Self.quote(event.eventID.string))",
            event.root.json, of: server)
        guard answer.status == 200 else {
            throw Failure(description: "send_join: \(String(decoding: answer.root.raw, as: UTF8.self))")
        }
        var state: [StateKey: Event] = [:]
        for view in answer.root["state"]?.elements.map({ $0 }) ?? [] {
            let event = try Event(receiving: Array(view.raw), version: version)
            if let key = event.stateMapKey { state[key] = event }
        }
        state[.member(user)] = event
        return Place(roomID: room, version: version, server: server, state: state, tip: event)
    }

    public struct Failure: Error, CustomStringConvertible { public let description: String }

    /// An event of this server's, upon the tip of what it knows unless the test says otherwise.
    public func event(
        _ type: String, stateKey: String? = nil, content: JSON, by user: UserID, in place: Place,
        previous: [EventID]? = nil, auth: [EventID]? = nil, redacts: EventID? = nil, key other: SigningKey? = nil,
        as server: ServerName? = nil
    ) throws -> Event {
        let keys = Authorization.requiredStateKeys(
            type: type, stateKey: stateKey, sender: user, content: content, version: place.version)
        return try EventTemplate(
            version: place.version, roomID: place.roomID, sender: user, type: type, stateKey: stateKey,
            content: content,
            prevEvents: previous ?? [place.tip.eventID], authEvents: auth ?? place.auth(keys),
            depth: place.tip.depth + 1,
            originServerTS: now(), redacts: redacts
        ).signed(by: other ?? key, as: server ?? name)
    }

    /// Sends a transaction; answers what became of each event: nil for those that were taken.
    @discardableResult
    public func send(
        _ events: [JSON], edus: [JSON] = [], id: String, to server: ServerName
    ) async throws -> (status: Int, errors: [String: String]) {
        let answer = try await ask(
            "PUT", "/_matrix/federation/v1/send/\(id)",
            [
                "origin": .string(name.string), "origin_server_ts": .integer(now()), "pdus": .array(events),
                "edus": .array(edus),
            ], of: server)
        var errors: [String: String] = [:]
        for (event, result) in answer.root["pdus"]?.members.map({ $0 }) ?? [] {
            if let error = result["error"]?.string { errors[event] = error }
        }
        return (answer.status, errors)
    }
}
