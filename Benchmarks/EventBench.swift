import MatrixCore

/// A room to measure with.
struct BenchRoom {
    let version: RoomVersion
    let key: SigningKey
    let server = ServerName(unchecked: "example.org")
    let creator = UserID(unchecked: "@creator:example.org")
    private(set) var roomID: RoomID?
    private(set) var state: [StateKey: Event] = [:]
    private(set) var last: [EventID] = []
    private var number: Int64 = 0

    init(_ version: RoomVersion, powerLevels: JSON = [:]) throws {
        self.version = version
        guard let key = SigningKey(seed: Array(0..<32), version: "1") else { preconditionFailure("a valid key") }
        self.key = key
        roomID = version.rules.roomIDs == .withDomain ? RoomID(unchecked: "!room:example.org") : nil
        var content: JSON = ["room_version": .string(version.identifier)]
        if version.rules.authorization.creator == .content { content["creator"] = .string(creator.string) }
        try add("m.room.create", creator, "", content)
        try add("m.room.member", creator, creator.string, ["membership": "join"])
        var levels = powerLevels
        if !version.rules.authorization.creatorsHaveInfinitePower { levels["users"] = [creator.string: 100] }
        try add("m.room.power_levels", creator, "", levels)
        try add("m.room.join_rules", creator, "", ["join_rule": "public"])
    }

    func template(_ type: String, _ sender: UserID, _ stateKey: String?, _ content: JSON) -> EventTemplate {
        let auth = Authorization.requiredStateKeys(
            type: type, stateKey: stateKey, sender: sender, content: content, version: version)
        return EventTemplate(
            version: version, roomID: roomID, sender: sender, type: type, stateKey: stateKey, content: content,
            prevEvents: last, authEvents: auth.compactMap { state[$0]?.eventID }, depth: number + 1,
            originServerTS: 1_700_000_000_000 + number,
            eventID: version.rules.eventIDs == .assigned ? EventID(unchecked: "$\(number):example.org") : nil)
    }

    @discardableResult
    mutating func add(_ type: String, _ sender: UserID, _ stateKey: String?, _ content: JSON) throws -> Event {
        let event = try template(type, sender, stateKey, content).signed(by: key, as: server)
        if roomID == nil { roomID = event.roomID }
        if let key = event.stateMapKey { state[key] = event }
        last = [event.eventID]
        number += 1
        return event
    }

    /// A message whose JSON has about `size` bytes.
    func message(padTo size: Int) throws -> Event {
        let text = "Lorem ipsum dolor sit amet, consectetur adipiscing elit. "
        func make(_ length: Int) throws -> Event {
            let body = String(String(repeating: text, count: length / text.count + 1).prefix(length))
            return try template(
                "m.room.message", creator, nil, ["body": .string(body), "msgtype": "m.text", "m.mentions": [:]]
            ).signed(by: key, as: server)
        }
        return try make(max(0, size - make(0).json.count))
    }
}

extension Bench {
    static func eventSection() throws {
        let room = try BenchRoom(.v11)
        let event = try room.message(padTo: 878)
        guard let verifyKey = room.key.verifyKey else { return }
        report(
            "receive (format, canonical form, ID), 878 B",
            1 / (try seconds { keep(try Event(receiving: event.json, version: .v11)) }), "events/s")
        report(
            "load from the database, 878 B",
            1 / (try seconds { keep(try Event(stored: event.json, eventID: event.eventID, version: .v11)) }), "events/s"
        )
        report("content hash", 1 / seconds { keep(event.contentHashMatches()) }, "events/s")
        report("reference hash", 1 / seconds { keep(event.referenceHash()) }, "events/s")
        report("redact", 1 / seconds { keep(event.redacted()) }, "events/s")
        report("cut for clients", 1 / seconds { keep(event.clientJSON()) }, "events/s")
        report("hash and sign", 1 / (try seconds { keep(try room.message(padTo: 0)) }), "events/s")
        report("sign 32 bytes", 1 / seconds { keep(room.key.sign(Array(repeating: 7, count: 32))) }, "signatures/s")
        report("verify", 1 / seconds { keep(event.verify(signatureOf: room.server, with: verifyKey)) }, "events/s")
        let megabyte = [UInt8](repeating: 7, count: 1_000_000)
        report("SHA-256", 1 / seconds { keep(Hashing.sha256(megabyte)) }, "MB/s")
    }

    /// Signatures of 2,000 events, as in a `send_join` answer: wall time by number of tasks.
    static func parallelSection() async throws {
        let room = try BenchRoom(.v11)
        guard let key = room.key.verifyKey else { return }
        let event = try room.message(padTo: 600)
        let events = Array(repeating: event, count: 2_000)
        for tasks in [1, 2, 4, 8] {
            var best = Double.infinity
            for _ in 0..<5 {
                let start = wallSeconds()
                keep(await SignatureChecking.verdicts(on: events, tasks: tasks) { _, _ in key })
                best = min(best, wallSeconds() - start)
            }
            report("2,000 signatures in \(tasks) tasks", best * 1e3, "ms")
        }
    }

    static func authorizationSection() throws {
        for version in [RoomVersion.v1, .v6, .v11, .v12] {
            var room = try BenchRoom(version)
            let user = UserID(unchecked: "@user:example.org")
            try room.add("m.room.member", user, user.string, ["membership": "join"])
            let message = try room.template("m.room.message", user, nil, ["body": "x"]).signed(
                by: room.key, as: room.server)
            let ban = try room.template("m.room.member", room.creator, user.string, ["membership": "ban"])
                .signed(by: room.key, as: room.server)
            let state = room.state
            for (name, event) in [("message", message), ("ban", ban)] {
                let cost = try seconds { try Authorization.check(event) { state[$0] } }
                report("check a \(name), version \(version)", 1 / cost, "checks/s")
            }
        }
    }

    static func pushSection() throws {
        let room = try BenchRoom(.v11)
        let event = try room.message(padTo: 878)
        let rules = PushRuleSet.defaults(for: UserID(unchecked: "@user:example.org"))
        guard let create = room.state[.create] else { return }
        let context = PushContext(
            memberCount: 100, displayName: "User",
            powerLevels: PowerLevels(event: room.state[.powerLevels], create: create))
        let user = UserID(unchecked: "@user:example.org")
        report(
            "default rules on a message", 1 / seconds { keep(rules.actions(for: event, user: user, in: context)) },
            "events/s")
        let text = String(repeating: "a", count: 65_000)
        let hostile = Glob(String(repeating: "*a", count: 31) + "*b")
        report("hostile glob on 65,000 characters", seconds { keep(hostile.matches(text, .words)) } * 1e3, "ms")
        let long = Glob(String(repeating: "a?*", count: 300) + "b")
        report("hostile long glob on 65,000 characters", seconds { keep(long.matches(text, .words)) } * 1e3, "ms")
    }
}
