import Database
import MatrixCore

/// What a batch is going to write into a room: events built one upon the other, and the state they lead to.
///
/// A value: a job that fails half-way is undone by going back to the copy from before it.
struct RoomDraft {
    let context: RoomContext
    let version: RoomVersion
    /// The room as it was read; nil for a room that is being made.
    let before: RoomRecord?
    private(set) var record: RoomRecord
    private(set) var added: [Added] = []
    /// What is to be written besides the events.
    var write = Write()
    /// Events that are to be read anew once this is committed: redactions took effect on them.
    private(set) var outdated: [EventNID] = []
    private(set) var tree: StateTree
    /// Where the state events of this draft stand in the auth graph's chain cover.
    private(set) var chains = ChainDraft()
    private let reader: any Reader
    /// State that has been looked up.
    private var known: [StateKey: Event?] = [:]
    /// The numbers of the state events that have been looked up, so that naming them as auth events reads nothing again.
    private var knownNumbers: [EventID: EventNID] = [:]
    private var tips: [Tip]
    /// What transactions of this batch have made.
    var transactions: [[UInt8]: EventID] = [:]

    struct Added {
        let event: StoredEvent
        let parsed: Event
        /// The user and the new membership, for member events.
        let membership: MembershipChange?
        let stateChange: StateTree.Change?
        let notifications: NotificationVerdict
        /// Until when it is sticky; nil if it isn't.
        let stickyUntil: Int64?
    }

    /// What a member event changes.
    struct MembershipChange {
        let user: UserNID
        let membership: StoredMembership
        let server: ServerNID
        /// How many more joined members the user's server has in the room: 1, 0 or −1.
        let joined: Int64
        /// How the membership ended, if it did.
        let ending: MembershipEnding?
    }

    /// A forward extremity: what the next event comes after.
    private struct Tip {
        let nid: EventNID
        let eventID: EventID
        let depth: Int64
    }

    /// - Parameter before: nil for a room that is being made.
    init(
        _ record: RoomRecord, isNew: Bool, version: RoomVersion, context: RoomContext, reader: any Reader
    ) async throws {
        self.record = record
        self.version = version
        self.context = context
        self.reader = reader
        before = isNew ? nil : record
        tree = StateTree(rows: context.database.stateRows, room: record.nid)
        tips = []
        for stored in try await context.database.events(record.extremities, reader) {
            let event = try context.parse(stored, version)
            tips.append(Tip(nid: stored.nid, eventID: stored.eventID, depth: event.depth))
        }
    }

    var isEmpty: Bool { added.isEmpty && write.isEmpty }

    // MARK: - Reading

    /// The state event that holds a key now.
    mutating func state(_ key: StateKey) async throws -> Event? {
        if let event = known[key] { return event }
        var found: Event?
        if let nid = try await stateEventNID(key) {
            found = try await event(nid)
            if let found { knownNumbers[found.eventID] = nid }
        }
        known[key] = .some(found)
        return found
    }

    func stateEventNID(_ key: StateKey) async throws -> EventNID? {
        guard let number = try await context.database.existingNumbers(ofStateKeys: [key])[key] else { return nil }
        return try await tree.event(for: number, in: record.state, reader)
    }

    private func event(_ nid: EventNID) async throws -> Event? {
        if let fresh = added.last(where: { $0.event.nid == nid }) { return fresh.parsed }
        guard let stored = try await context.database.events([nid], reader).first else {
            throw DatabaseError.corrupt("state event \(nid) is missing")
        }
        return try context.parse(stored, version)
    }

    /// An event by its ID, of this draft or stored.
    func storedEvent(_ eventID: EventID) async throws -> StoredEvent? {
        if let fresh = added.last(where: { $0.event.eventID == eventID }) { return fresh.event }
        return try await context.database.event(eventID)
    }

    mutating func membership(of user: UserID) async throws -> Membership {
        guard let event = try await state(.member(user)) else { return .leave }
        return Membership(event.content["membership"]) ?? .leave
    }

    mutating func powerLevels() async throws -> PowerLevels {
        guard let create = try await state(.create) else { throw DatabaseError.corrupt("a room has no create event") }
        return PowerLevels(event: try await state(.powerLevels), create: create)
    }

    /// Whether everybody may enter the room or look into it, and so see who is there.
    mutating func isOpen() async throws -> Bool {
        if try await state(.joinRules)?.content["join_rule"]?.isString("public") == true { return true }
        return HistoryVisibility(event: try await state(.historyVisibility)) == .worldReadable
    }

    /// The event that the transaction has made, in this batch or before.
    func event(ofTransaction key: [UInt8], by user: UserNID) async throws -> EventID? {
        if let event = transactions[key] { return event }
        return try await context.database.event(ofTransaction: key, by: user)
    }

    // MARK: - Building

    /// Makes an event on the forward extremities, checks that it is allowed, and adds it.
    ///
    /// - Throws: `M_FORBIDDEN` if the authorisation rules refuse it, `M_TOO_LARGE` and `M_BAD_JSON` if it would not be an
    ///   event.
    @discardableResult
    mutating func append(
        _ type: String, stateKey: String? = nil, content: JSON, sender: UserID, redacts: EventID? = nil,
        transactionKey: String? = nil, timestamp: Int64? = nil, sticky: Int64? = nil
    ) async throws -> StoredEvent {
        var authEvents: [EventID] = []
        let required = Authorization.requiredStateKeys(
            type: type, stateKey: stateKey, sender: sender, content: content, version: version)
        for key in required {
            if let event = try await state(key) { authEvents.append(event.eventID) }
        }
        // A peer's depth is a claim of up to 2^53 − 1; the next one stays within bounds.
        let depth = min((tips.map(\.depth).max() ?? 0) + 1, 1 << 53 - 1)
        let template = EventTemplate(
            version: version, roomID: record.roomID, sender: sender, type: type, stateKey: stateKey, content: content,
            prevEvents: tips.map(\.eventID).prefix(20).map { $0 }, authEvents: authEvents, depth: depth,
            originServerTS: timestamp ?? context.surroundings.now(), redacts: redacts,
            eventID: version.rules.eventIDs == .assigned
                ? EventID(unchecked: "$\(context.surroundings.randomText(18)):\(context.serverName)") : nil,
            members: sticky.map { [StickyEvents.member: ["duration_ms": .integer($0)]] } ?? [:])
        let event = try context.sign(template)
        return try await append(event, transactionKey: transactionKey)
    }

    /// Adds an event of this server that has been built already.
    @discardableResult
    mutating func append(_ event: Event, transactionKey: String? = nil) async throws -> StoredEvent {
        try await authorize(event)
        let database = context.database
        let type = EventType(event.type)
        let nid = try await database.newEventNumbers(1)
        var stateKey: StateKeyNID?
        var replaces: EventNID?
        if let key = event.stateMapKey {
            stateKey = try await database.numbers(ofStateKeys: [key])[key]
            if let stateKey { replaces = try await tree.event(for: stateKey, in: record.state, reader) }
        }
        var auth: [EventNID] = []
        for eventID in event.authEvents {
            if let nid = try await number(ofAuthEvent: eventID) { auth.append(nid) }
        }
        guard let typeNID = try await database.numbers(ofTypes: [type])[type] else {
            throw DatabaseError.corrupt("event type \(type) has got no number")
        }
        var chain: ChainPlace?
        if event.isState {
            chain = try await chains.place(nid, authorisedBy: auth, replacing: replaces, database, reader)
        }
        let reader = reader
        let verdict = try await context.notifications.judge(event, in: &self, reader)
        record.depth += 1
        let stickyUntil = StickyEvents.end(of: event, receivedAt: context.surroundings.now())
        let stored = StoredEvent(
            nid: nid, eventID: event.eventID, room: record.nid, position: nil, orderDepth: record.depth, type: typeNID,
            sender: try await database.number(ofUser: event.sender), stateKey: stateKey, stateBefore: record.state,
            flags: stickyUntil == nil ? [] : .sticky, originServerTS: event.originServerTS, redactedBy: nil,
            replaces: replaces, chain: chain,
            previous: tips.map(\.nid), auth: auth, transactionKey: transactionKey, cuts: event.clientCuts,
            json: event.json, notifying: verdict.mark)
        var before: Membership?
        if event.type == "m.room.member", let key = event.stateMapKey {
            before = try await state(key).flatMap { Membership($0.content["membership"]) }
        }
        var change: StateTree.Change?
        if let stateKey, let key = event.stateMapKey {
            let made = try await tree.change([stateKey: nid], in: record.state, nextRow: record.nextStateRow, reader)
            record.state = made.state
            record.nextStateRow += Int64(made.rows.count)
            record.stateVersion += 1
            known[key] = .some(event)
            change = made
        }
        try await updateFacts(event.stateMapKey)
        if event.type == "m.room.redaction", let target = event.redacts { try await redact(target, by: event, nid) }
        if let (parent, type) = Self.relation(of: event) { try await relate(stored, to: parent, type: type, event) }
        if event.stateMapKey == .joinRules || event.stateMapKey == .historyVisibility {
            write.setOpen(try await isOpen(), record.nid)
        }
        added.append(
            Added(
                event: stored, parsed: event, membership: try await membershipChange(event, from: before),
                stateChange: change, notifications: verdict, stickyUntil: stickyUntil))
        tips = [Tip(nid: nid, eventID: event.eventID, depth: event.depth)]
        record.extremities = [nid]
        record.timelineVersion += 1
        return stored
    }

    /// What an event refers to, and how; nil for those that refer to nothing, redacted ones among them.
    static func relation(of event: Event) -> (EventID, String)? {
        guard let relation = event.content["m.relates_to"], let type = relation["rel_type"]?.string,
            type.utf8.count <= 255,
            let parent = relation["event_id"]?.string.flatMap({ EventID($0) })
        else { return nil }
        return (parent, type)
    }

    private mutating func relate(
        _ stored: StoredEvent, to parent: EventID, type: String, _ event: Event
    ) async throws {
        write.relate(stored, to: parent, type: type)
        // It is to be read anew: with children, it is shown with them.
        if let known = try await context.database.event(parent) { outdated.append(known.nid) }
    }

    /// Whether a user has reacted to an event in this way already (Client-Server API, "Annotations").
    func hasAnnotation(_ content: JSON, _ type: String, by user: UserNID) async throws -> Bool {
        guard let relation = content["m.relates_to"], relation["rel_type"] == "m.annotation",
            let parent = relation["event_id"]?.stringValue.flatMap({ EventID($0) }),
            let key = relation["key"]?.stringValue
        else { return false }
        let start = Database.OrderedPlace(depth: .max, position: .max)
        let children = try await context.database.children(
            of: parent, from: start, backwards: true, limit: 10_000, reader)
        let own = try await context.database.events(children.filter { $0.type == "m.annotation" }.map(\.event), reader)
            .filter { $0.sender == user }
        for stored in own {
            let event = try context.parse(stored, version)
            if event.type == type, event.content["m.relates_to"]?["key"]?.isString(key) == true { return true }
        }
        return false
    }

    private mutating func authorize(_ event: Event) async throws {
        var needed = Authorization.requiredStateKeys(for: event)
        if !needed.contains(.create) { needed.append(.create) }
        var state: [StateKey: Event] = [:]
        for key in needed { state[key] = try await self.state(key) }
        do {
            try Authorization.check(event, state: { state[$0] })
        } catch {
            throw MatrixError.forbidden(error.reason.prefix(1).uppercased() + error.reason.dropFirst())
        }
    }

    private func number(ofAuthEvent eventID: EventID) async throws -> EventNID? {
        if let known = knownNumbers[eventID] { return known }
        if let fresh = added.last(where: { $0.event.eventID == eventID }) { return fresh.event.nid }
        return try await context.database.event(eventID)?.nid
    }

    private func membershipChange(_ event: Event, from before: Membership?) async throws -> MembershipChange? {
        guard event.type == "m.room.member", let user = event.stateKey.flatMap({ UserID($0) }),
            let membership = Membership(event.content["membership"])
        else { return nil }
        let servers = try await context.database.numbers(ofServers: [user.server])
        guard let server = servers[user.server] else {
            throw DatabaseError.corrupt("server \(user.server) has got no number")
        }
        return MembershipChange(
            user: try await context.database.number(ofUser: user), membership: StoredMembership(membership),
            server: server,
            joined: (membership == .join ? 1 : 0) - (before == .join ? 1 : 0),
            ending: Self.ending(membership, after: before, byOther: event.sender != user))
    }

    private static func ending(
        _ membership: Membership, after before: Membership?, byOther: Bool
    ) -> MembershipEnding? {
        guard membership == .leave || membership == .ban else { return nil }
        var ending: MembershipEnding = byOther ? [.byOther] : []
        if before == .join { ending.insert(.wasJoined) }
        if before == .invite || before == .knock { ending.insert(.wasInvited) }
        return ending
    }

    /// Lets a redaction take effect, if it may (room versions 3 and later, "Handling redactions").
    private mutating func redact(_ target: EventID, by redaction: Event, _ nid: EventNID) async throws {
        guard let stored = try await context.database.event(target), stored.room == record.nid else { return }
        let event = try context.parse(stored, version)
        let levels = try await powerLevels()
        // Other servers accept whatever one server does to its own users' events; who of its users may, it decides itself
        // (Client-Server API, "Redactions"): the author, and those with the power to redact.
        let mayRedact = event.sender == redaction.sender || levels.level(of: redaction.sender) >= .finite(levels.redact)
        guard mayRedact, Authorization.redactionApplies(redaction, to: event, powerLevels: levels) else {
            throw MatrixError.forbidden("You may not redact this message.")
        }
        write.redact(target, by: nid, overwriteAt: context.surroundings.now() + context.keepRedacted)
        outdated.append(stored.nid)
        if let (parent, _) = Self.relation(of: event) {
            write.unrelate(stored.nid)
            if let known = try await context.database.event(parent) { outdated.append(known.nid) }
        }
    }

    mutating func committed() { tree.committed() }

    // MARK: - Facts

    /// Follows what lists of rooms go by, once a state has changed.
    private mutating func updateFacts(_ changed: StateKey?) async throws {
        if record.facts == nil {
            record.facts = RoomFacts(
                type: try await state(.create)?.content["type"]?.string,
                isEncrypted: try await state(.encryption) != nil)
        } else if changed == .create {
            let type = try await state(.create)?.content["type"]?.string
            record.facts?.type = type
        } else if changed == .encryption {
            let isEncrypted = try await state(.encryption) != nil
            record.facts?.isEncrypted = isEncrypted
        }
    }

    /// Notes the positions that the newest events have got.
    mutating func moveFacts(newest: Int64, bump: Int64?) {
        record.facts?.newest = newest
        if let bump = bump ?? (record.facts?.bump == 0 ? newest : nil) { record.facts?.bump = bump }
    }
}

extension StoredMembership {
    init(_ membership: Membership) {
        self =
            switch membership {
            case .join: .join
            case .invite: .invite
            case .ban: .ban
            case .knock: .knock
            case .leave: .leave
            }
    }
}
