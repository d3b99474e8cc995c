import Homeserver
import MatrixCore

/// A room with any number of members on any number of servers, each with a key of its own, for others to join: all that is asked
/// of these servers about it is answered.
public final class LargeRoom: Sendable {
    public let roomID: RoomID
    /// The server that knows the room and lets others join.
    public let resident: ServerName
    public let version: RoomVersion
    /// The events of the state, the creator's and the rules first.
    public let state: [Event]
    private let keys: [ServerName: SigningKey]
    private let now: @Sendable () -> Int64

    /// Those that all others rest on: create event, the creator's join, permissions, join rules.
    private static let base = 4

    /// - Parameters:
    ///   - members: how many users have joined, the creator aside.
    ///   - servers: on how many servers.
    public convenience init(members: Int, servers: Int, on network: TestNetwork, clock: ManualSurroundings) throws {
        let names = (0..<servers).map { ServerName(unchecked: "large\($0).example") }
        try self.init(members: members, on: names, now: { clock.now })
        network.forge { [weak self] in self?.answer($0) }
    }

    /// - Parameters:
    ///   - members: how many users have joined, the creator aside.
    ///   - names: on which servers; the first is the resident one.
    ///   - now: milliseconds since 1970.
    public init(members: Int, on names: [ServerName], now: @escaping @Sendable () -> Int64) throws {
        let version = RoomVersion.named("11")!
        var keys: [ServerName: SigningKey] = [:]
        for (number, name) in names.enumerated() {
            let seed = (0..<32).map { UInt8(truncatingIfNeeded: (number + 1) &* ($0 + 3) &+ number >> 8 &* 7 + $0) }
            keys[name] = SigningKey(seed: seed, version: "k")
        }
        let creator = UserID(unchecked: "@creator:\(names[0])")
        let roomID = RoomID(unchecked: "!large:\(names[0])")
        var events: [Event] = []
        func add(_ type: String, _ key: String, _ content: JSON, by user: UserID, auth: [Int]) throws {
            events.append(
                try EventTemplate(
                    version: version, roomID: roomID, sender: user, type: type, stateKey: key, content: content,
                    prevEvents: events.last.map { [$0.eventID] } ?? [], authEvents: auth.map { events[$0].eventID },
                    depth: Int64(events.count + 1), originServerTS: now()
                ).signed(by: keys[user.server]!, as: user.server))
        }
        try add("m.room.create", "", ["room_version": "11"], by: creator, auth: [])
        try add("m.room.member", creator.string, ["membership": "join"], by: creator, auth: [0])
        try add(
            "m.room.power_levels", "", ["users": [creator.string: 100]], by: creator, auth: [0, 1])
        try add("m.room.join_rules", "", ["join_rule": "public"], by: creator, auth: [0, 1, 2])
        for number in 0..<members {
            let user = UserID(unchecked: "@member\(number):\(names[number % names.count])")
            try add(
                "m.room.member", user.string, ["membership": "join", "displayname": .string("Member \(number)")],
                by: user, auth: [0, 2, 3])
        }
        self.roomID = roomID
        self.version = version
        self.keys = keys
        self.now = now
        resident = names[0]
        state = events
    }

    /// What one of the room's servers answers; nil: it is none of them.
    public func answer(_ request: ServerRequest) -> ServerResponse? {
        guard let key = keys[request.destination] else { return nil }
        let body: JSON?
        if request.target == "/_matrix/key/v2/server" {
            body = try? ServerKeyDocument.make(
                for: request.destination, validUntil: now() + 86_400_000, key: key, old: [])
        } else if request.target.contains("/make_join/") {
            body = template(request.target)
        } else if request.target.contains("/send_join/") {
            body = joined(request)
        } else if request.target.contains("/state_ids/") {
            body = [
                "pdu_ids": .array(state.map { .string($0.eventID.string) }),
                "auth_chain_ids": .array(state.prefix(Self.base).map { .string($0.eventID.string) }),
            ]
        } else if request.target.contains("/v1/state/") {
            return ServerResponse(
                status: 200, body: Self.encode([("pdus", state[...]), ("auth_chain", state.prefix(Self.base))]))
        } else if request.target.contains("/send/") {
            body = ["pdus": [:]]
        } else {
            return ServerResponse(status: 404, body: Array(#"{"errcode":"M_NOT_FOUND","error":"Not here."}"#.utf8))
        }
        return ServerResponse(status: 200, body: body?.encoded() ?? [])
    }

    private func template(_ target: String) -> JSON? {
        let user = target.split(separator: "/").last?.split(separator: "?").first
            .flatMap { Self.decoded(String($0)) }
        guard let user, let newest = state.last else { return nil }
        return [
            "room_version": .string(version.identifier),
            "event": [
                "type": "m.room.member", "sender": .string(user), "state_key": .string(user),
                "room_id": .string(roomID.string), "content": ["membership": "join"],
                "prev_events": [.string(newest.eventID.string)],
                "auth_events": .array([0, 2, 3].map { .string(state[$0].eventID.string) }),
                "depth": .integer(Int64(state.count + 1)), "origin_server_ts": .integer(now()),
            ],
        ]
    }

    private func joined(_ request: ServerRequest) -> JSON? {
        guard let body = request.body, let event = try? JSONDocument(parsing: body).root.json else { return nil }
        let omits = request.target.contains("omit_members=true")
        // The creator's permissions rest on their membership.
        let shown = omits ? [state[0], state[2], state[3]] : state
        return [
            "event": event, "members_omitted": .bool(omits), "origin": .string(resident.string),
            "servers_in_room": .array(keys.keys.sorted().map { .string($0.string) }),
            "state": .array(shown.map(\.root.json)), "auth_chain": .array(state.prefix(Self.base).map(\.root.json)),
        ]
    }

    /// An object of lists of events; thousands of them aren't taken apart for it.
    private static func encode(_ lists: [(String, ArraySlice<Event>)]) -> [UInt8] {
        var writer = JSONWriter(capacity: lists.reduce(0) { $0 + 700 * $1.1.count })
        writer.beginObject()
        for (name, events) in lists {
            writer.key(name)
            writer.beginArray()
            for event in events { writer.raw(event.json) }
            writer.endArray()
        }
        writer.endObject()
        return writer.bytes
    }

    private static func decoded(_ text: String) -> String? {
        var bytes: [UInt8] = []
        var rest = Substring(text).utf8
        while let byte = rest.popFirst() {
            guard byte == UInt8(ascii: "%") else {
                bytes.append(byte)
                continue
            }
            guard let code = UInt8(String(Substring(rest.prefix(2))), radix: 16) else { return nil }
            bytes.append(code)
            rest = rest.dropFirst(2)
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}
