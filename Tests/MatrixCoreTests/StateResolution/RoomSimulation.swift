@testable import MatrixCore

/// A room that several servers write to at once, from a seed: forks, merges, bans, fights over power.
struct RoomSimulation {
    static let users = ["@a:hs1", "@b:hs2", "@c:hs3", "@d:hs1", "@e:hs2"]

    let version: RoomVersion
    var random: SplitMix
    let key: SigningKey
    private(set) var roomID: RoomID?
    /// Accepted events in the order in which they were made.
    private(set) var events: [Event] = []
    private(set) var byID: [EventID: Event] = [:]
    private(set) var stateAfter: [EventID: StateMap] = [:]
    private var number = 0

    init(_ version: RoomVersion, seed: UInt64, events count: Int) throws {
        self.version = version
        random = SplitMix(seed: seed)
        guard let key = SigningKey(seed: RoomBuilder.keySeed, version: "1") else { preconditionFailure("a valid key") }
        self.key = key
        roomID = version.rules.roomIDs == .withDomain ? RoomID(unchecked: "!room:hs1") : nil
        try start()
        for _ in 0..<count { try act() }
    }

    var source: EventLookup { EventLookup(byID) }

    /// Makes an event as a server would that knows `prevs` as the latest ones.
    mutating func make(
        _ type: String, _ sender: String, _ stateKey: String?, _ content: JSON, prevs: [EventID], state: StateMap
    ) throws -> Event {
        number += 1
        let sender = UserID(unchecked: sender)
        let auth = Authorization.requiredStateKeys(
            type: type, stateKey: stateKey, sender: sender, content: content, version: version)
        let depth = (prevs.compactMap { byID[$0]?.depth }.max() ?? 0) + 1
        return try EventTemplate(
            version: version, roomID: roomID, sender: sender, type: type, stateKey: stateKey, content: content,
            prevEvents: prevs, authEvents: auth.compactMap { state[$0] }, depth: depth,
            originServerTS: Int64(number * 10 + random.below(100)),
            eventID: version.rules.eventIDs == .assigned ? EventID(unchecked: "$\(number):\(sender.server)") : nil
        ).signed(by: key, as: sender.server)
    }

    func stateBefore(_ prevs: [EventID]) throws -> StateMap {
        try StateResolution.resolve(prevs.compactMap { stateAfter[$0] }, version: version, source: source)
    }

    func isAllowed(_ event: Event, in state: StateMap) -> Bool {
        do {
            try Authorization.checkAuthEvents(event, authEvents: event.authEvents.compactMap { byID[$0] })
            try Authorization.check(event) { key in
                // The create event of version 12 is in the state as well.
                state[key].flatMap { byID[$0] }
            }
            return true
        } catch { return false }
    }

    private mutating func add(_ type: String, _ sender: String, _ stateKey: String?, _ content: JSON, prevs: [EventID])
        throws
    {
        let state = try stateBefore(prevs)
        let event = try make(type, sender, stateKey, content, prevs: prevs, state: state)
        if roomID == nil { roomID = event.roomID }
        guard isAllowed(event, in: state) else { return }
        events.append(event)
        byID[event.eventID] = event
        var after = state
        if let key = event.stateMapKey { after[key] = event.eventID }
        stateAfter[event.eventID] = after
    }

    private mutating func start() throws {
        let creator = Self.users[0]
        var content: JSON = ["room_version": .string(version.identifier)]
        if version.rules.authorization.creator == .content { content["creator"] = .string(creator) }
        try add("m.room.create", creator, "", content, prevs: [])
        func last() -> [EventID] { events.last.map { [$0.eventID] } ?? [] }
        try add("m.room.member", creator, creator, ["membership": "join"], prevs: last())
        var users: JSON = [Self.users[1]: 100, Self.users[2]: 50]
        if !version.rules.authorization.creatorsHaveInfinitePower { users[creator] = 100 }
        try add("m.room.power_levels", creator, "", ["users": users], prevs: last())
        try add("m.room.join_rules", creator, "", ["join_rule": "public"], prevs: last())
        for user in Self.users[1...] { try add("m.room.member", user, user, ["membership": "join"], prevs: last()) }
    }

    private mutating func act() throws {
        let recent = Array(events.suffix(8).map(\.eventID))
        var prevs: [EventID] = []
        for _ in 0...random.below(3) {
            let candidate = random.pick(recent)
            if !prevs.contains(candidate) { prevs.append(candidate) }
        }
        let sender = random.pick(Self.users)
        let target = random.pick(Self.users)
        switch random.below(10) {
        case 0, 1:
            let state = try stateBefore(prevs)
            var content = state[.powerLevels].flatMap { byID[$0]?.content.json } ?? [:]
            content["users"]?[target] = .integer(Int64(random.pick([0, 25, 50, 75, 100])))
            try add("m.room.power_levels", sender, "", content, prevs: prevs)
        case 2:
            try add(
                "m.room.join_rules", sender, "", ["join_rule": .string(random.pick(["public", "invite"]))], prevs: prevs
            )
        case 3: try add("m.room.member", sender, target, ["membership": "ban"], prevs: prevs)
        case 4: try add("m.room.member", sender, target, ["membership": "leave"], prevs: prevs)
        case 5, 6: try add("m.room.member", target, target, ["membership": "join"], prevs: prevs)
        case 7: try add("m.room.member", sender, target, ["membership": "invite"], prevs: prevs)
        default: try add("m.room.topic", sender, "", ["topic": .integer(Int64(number))], prevs: prevs)
        }
    }
}
