@testable import MatrixCore

/// Builds a room event by event with real hashes and signatures, from which tests take the events and states they need.
struct RoomBuilder {
    static let keySeed: [UInt8] = Array(0..<32)

    let version: RoomVersion
    let server: ServerName
    let key: SigningKey
    private(set) var events: [Event] = []
    private(set) var state: [StateKey: Event] = [:]
    private var nextNumber = 0
    var roomID: RoomID?

    init(_ version: RoomVersion, server: String = "hs") {
        self.version = version
        self.server = ServerName(unchecked: server)
        guard let key = SigningKey(seed: Self.keySeed, version: "1") else { preconditionFailure("a valid key") }
        self.key = key
        roomID = version.rules.roomIDs == .withDomain ? RoomID(unchecked: "!room:\(server)") : nil
    }

    /// What `m.room.create` has to say in this room version.
    func createContent(creator: String) -> JSON {
        var content: JSON = ["room_version": .string(version.identifier)]
        if version.rules.authorization.creator == .content { content["creator"] = .string(creator) }
        return content
    }

    /// An event on top of the latest one, with the auth events that the current state selects; not added to the room.
    mutating func make(
        _ type: String, sender: String, stateKey: String? = nil, content: JSON = [:], prevEvents: [EventID]? = nil,
        redacts: EventID? = nil, timestamp: Int64? = nil
    ) throws -> Event {
        nextNumber += 1
        let sender = UserID(unchecked: sender)
        let auth = Authorization.requiredStateKeys(
            type: type, stateKey: stateKey, sender: sender, content: content, version: version)
        var template = EventTemplate(
            version: version, roomID: roomID, sender: sender, type: type, stateKey: stateKey, content: content,
            prevEvents: prevEvents ?? events.last.map { [$0.eventID] } ?? [],
            authEvents: auth.compactMap { state[$0]?.eventID }, depth: Int64(nextNumber),
            originServerTS: timestamp ?? 1_000 + Int64(nextNumber), redacts: redacts)
        if version.rules.eventIDs == .assigned {
            template.eventID = EventID(unchecked: "$\(nextNumber):\(sender.server)")
        }
        return try template.signed(by: key, as: sender.server)
    }

    /// The same, and the room goes on from there. Whether it is allowed is not asked.
    @discardableResult
    mutating func add(
        _ type: String, sender: String, stateKey: String? = nil, content: JSON = [:], redacts: EventID? = nil
    ) throws -> Event {
        let event = try make(type, sender: sender, stateKey: stateKey, content: content, redacts: redacts)
        add(event)
        return event
    }

    mutating func add(_ event: Event) {
        events.append(event)
        if roomID == nil { roomID = event.roomID }
        if let key = event.stateMapKey { state[key] = event }
    }

    /// Puts another event into the current state, as only a fork or a bug could.
    mutating func replaceState(_ event: Event) {
        if let key = event.stateMapKey { state[key] = event }
    }

    mutating func removeState(_ key: StateKey) { state[key] = nil }

    @discardableResult
    mutating func addMember(_ user: String, _ membership: String, by sender: String? = nil) throws -> Event {
        try add("m.room.member", sender: sender ?? user, stateKey: user, content: ["membership": .string(membership)])
    }

    /// A room with a create event, its creator joined, power levels and a join rule.
    static func room(
        _ version: RoomVersion, creator: String = "@creator:hs", powerLevels: JSON? = [:], joinRule: JSON? = "public",
        create: JSON = [:]
    ) throws -> RoomBuilder {
        var room = RoomBuilder(version)
        var content = room.createContent(creator: creator)
        for (key, value) in create.objectValue ?? [:] { content[key] = value }
        try room.add("m.room.create", sender: creator, stateKey: "", content: content)
        try room.addMember(creator, "join")
        if var powerLevels {
            // Before version 12 the creator would lose all power with the first power levels event that doesn't name him.
            if powerLevels["users"] == nil, !version.rules.authorization.creatorsHaveInfinitePower {
                powerLevels["users"] = [creator: 100]
            }
            try room.add("m.room.power_levels", sender: creator, stateKey: "", content: powerLevels)
        }
        if let joinRule {
            try room.add("m.room.join_rules", sender: creator, stateKey: "", content: ["join_rule": joinRule])
        }
        return room
    }

    func check(_ event: Event) throws(AuthorizationError) {
        try Authorization.check(event) { state[$0] }
    }
}
