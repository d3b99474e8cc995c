import Database
import MatrixCore

/// What a batch is going to write into a room: events built one upon the other, and the state they lead to.
struct RoomDraft {
    let context: RoomContext
    var version: RoomVersion
    /// The room as it was read; nil for a room that is being made.
    let before: RoomRecord?
    var record: RoomRecord
    var added = AddedEvents()
    /// What is to be written besides the events.
    var write = Write()
    /// Events that are to be read anew once this is committed: redactions took effect on them.
    var outdated: [EventNID] = []
    var tree: StateTree
    /// Where the state events of this draft stand in the auth graph's chain cover.
    var chains = ChainDraft()
    let reader: any Reader
    /// State that has been looked up.
    var known: [StateKey: Event?] = [:]
    /// The numbers of the state events that have been looked up, so that naming them as auth events reads nothing again.
    private var knownNumbers: [EventID: EventNID] = [:]
    var tips: [Tip]
    /// New rows of the state tree.
    var stateRows: [(number: Int64, bytes: [UInt8])] = []
    /// The event that is being added: its state may be asked for already.
    var upcoming: (stored: StoredEvent, parsed: Event)?
    /// Redactions of this draft whose targets have not come yet.
    var waitingRedactions: [EventID: [EventNID]] = [:]
    /// Events of this server that the room's policy server has to sign.
    var unsigned: [Unsigned] = []
    /// Events that have been looked up already; nil for those that aren't here.
    var looked: [EventID: StoredEvent?] = [:]
    /// What is missing before events, as far as this draft has to do with it.
    var gaps: [EventNID: [EventID]] = [:]
    /// Events that have got other states.
    var restated: [EventNID: StoredEvent] = [:]
    /// What transactions of this batch have made.
    var transactions: [[UInt8]: EventID] = [:]
    /// Whether it is taken for granted that no transaction has been here before: that is tried first, since hardly any client
    /// repeats itself, and if one does, the write can't be carried out.
    var hopesForNewTransactions = false

    struct Added {
        var event: StoredEvent
        let parsed: Event
        /// Where it gets its place in the room.
        let placing: Placing
        /// The memberships that are others after it: for a member event one, more where states were merged.
        var memberships: [MembershipChange] = []
        /// The room's current state, if it is another one now.
        var currentState: StateNID?
        var notifications = NotificationVerdict()
        /// Until when it is sticky; nil if it isn't.
        var stickyUntil: Int64?

        /// Whether people may find it by its words.
        var isSearchable: Bool {
            placing.isShown && event.redactedBy == nil
                && !SearchWords.texts(type: parsed.type, content: parsed.content).isEmpty
        }
    }

    enum Placing {
        /// At the end of the timeline.
        case newest
        /// At the end of the timeline; it was known as an outlier before.
        case newestOfOutlier
        /// Nowhere: outliers, rejected and soft-failed events.
        case nowhere
        /// Nowhere; it was known as an outlier before.
        case nowhereOfOutlier
        /// In what was before, at a position given out for it.
        case before(Int64)
        /// The same for one that was known as an outlier.
        case beforeOfOutlier(Int64)

        /// Whether it gets a position at the end of the timeline.
        var isNewest: Bool {
            switch self {
            case .newest, .newestOfOutlier: true
            case .nowhere, .nowhereOfOutlier, .before, .beforeOfOutlier: false
            }
        }

        /// Whether it is part of the room's history.
        var isShown: Bool {
            switch self {
            case .newest, .newestOfOutlier, .before, .beforeOfOutlier: true
            case .nowhere, .nowhereOfOutlier: false
            }
        }
    }

    /// What a member event changes.
    struct MembershipChange {
        let user: UserNID
        let membership: StoredMembership
        let event: EventNID
        let server: ServerNID
        /// How many more joined members the user's server has in the room: 1, 0 or −1.
        let joined: Int64
        /// How the membership ended, if it did.
        let ending: MembershipEnding?
    }

    /// A forward extremity: what the next event comes after.
    struct Tip {
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

    /// What differs once a job has done something to the draft.
    struct Mark: Equatable {
        let events: Int
        let steps: Int
        let rows: Int
        let depth: Int64
        let stateVersion: Int64
        let timelineVersion: Int64
    }

    var mark: Mark {
        Mark(
            events: added.count, steps: write.count, rows: stateRows.count, depth: record.depth,
            stateVersion: record.stateVersion, timelineVersion: record.timelineVersion)
    }

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
        guard let number = try await context.database.existingNumber(ofStateKey: key) else { return nil }
        return try await tree.event(for: number, in: record.state, reader)
    }

    func event(_ nid: EventNID) async throws -> Event? {
        guard let stored = try await stored([nid]).first else {
            throw DatabaseError.corrupt("state event \(nid) is missing")
        }
        return try parsed(stored)
    }

    /// An event by its ID, of this draft or stored.
    func storedEvent(_ eventID: EventID) async throws -> StoredEvent? {
        if let fresh = added[eventID] { return fresh.event }
        return try await context.database.event(eventID)
    }

    /// The event that holds a key now, as it is shown: without what a redaction took away.
    mutating func shownState(_ key: StateKey) async throws -> Event? {
        guard let event = try await state(key) else { return nil }
        return try await isRedacted(event) ? event.redacted() : event
    }

    func isRedacted(_ event: Event) async throws -> Bool {
        try await find([event.eventID])[event.eventID]?.redactedBy != nil
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

    /// Does what a transaction asks for, unless it has been done before: then answers what it has made.
    ///
    /// - Throws: ``RepeatedTransaction`` if the draft is to be made again, with the transactions looked up.
    mutating func once(
        _ key: [UInt8], by user: UserNID, _ body: (inout RoomDraft) async throws -> EventID
    ) async throws -> EventID {
        if let event = transactions[key] { return event }
        let database = context.database
        if !hopesForNewTransactions, let made = try await database.event(ofTransaction: key, by: user) { return made }
        let made: EventID
        do {
            made = try await body(&self)
        } catch let error as MatrixError where hopesForNewTransactions {
            // What was allowed the first time need not be any more.
            guard try await database.event(ofTransaction: key, by: user) == nil else { throw RepeatedTransaction() }
            throw error
        }
        write.rememberTransaction(key, of: user, made: made, at: context.surroundings.now())
        transactions[key] = made
        return made
    }

    /// A transaction that was taken for new has been carried out before.
    struct RepeatedTransaction: Error {}

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
        let template = try await template(
            type, stateKey: stateKey, content: content, sender: sender, redacts: redacts, timestamp: timestamp,
            sticky: sticky)
        return try await append(try context.sign(template), transactionKey: transactionKey)
    }

    /// An event upon the forward extremities that is still to be signed, by this server or another one.
    mutating func template(
        _ type: String, stateKey: String? = nil, content: JSON, sender: UserID, redacts: EventID? = nil,
        timestamp: Int64? = nil, sticky: Int64? = nil
    ) async throws -> EventTemplate {
        var authEvents: [EventID] = []
        let required = Authorization.requiredStateKeys(
            type: type, stateKey: stateKey, sender: sender, content: content, version: version)
        for key in required {
            if let event = try await state(key) { authEvents.append(event.eventID) }
        }
        // A peer's depth is a claim, in room versions 1 to 5 of up to 2^63 − 1; the next one stays within canonical JSON.
        let depth = min(tips.map(\.depth).max() ?? 0, 1 << 53 - 2) + 1
        let previous = tips.prefix(Self.mostPrevious)
        return EventTemplate(
            version: version, roomID: record.roomID, sender: sender, type: type, stateKey: stateKey, content: content,
            prevEvents: previous.map(\.eventID), authEvents: authEvents, depth: depth,
            originServerTS: timestamp ?? context.surroundings.now(), redacts: redacts,
            eventID: version.rules.eventIDs == .assigned
                ? EventID(unchecked: "$\(context.surroundings.randomText(18)):\(context.serverName)") : nil,
            members: sticky.map { [StickyEvents.member: ["duration_ms": .integer($0)]] } ?? [:])
    }

    /// Previous events that an event of ours has at most; more than that many forward extremities are merged step by step.
    private static let mostPrevious = 20

    /// Adds an event of this server that has been built already on the forward extremities.
    @discardableResult
    mutating func append(_ event: Event, transactionKey: String? = nil) async throws -> StoredEvent {
        try await authorize(event)
        var auth: [EventNID] = []
        for eventID in event.authEvents {
            if let nid = try await number(ofAuthEvent: eventID) { auth.append(nid) }
        }
        let previous = tips.prefix(Self.mostPrevious).map(\.nid)
        let policy = try await policy()
        let index = added.count
        let stored = try await add(
            event, nid: nil, flags: .outgoing, stateBefore: record.state, previous: previous, auth: auth,
            transactionKey: transactionKey)
        if let policy, !policy.recommends(event) { unsigned.append(Unsigned(index: index, policy: policy)) }
        return stored
    }

    /// Adds an event to the end of the timeline, with what follows from it; the current state becomes that after the event
    /// where it was sent upon the whole of the room, and is merged otherwise.
    ///
    /// - Parameters:
    ///   - nid: its number, if it was known as an outlier.
    ///   - isChained: whether it has its place among what authorises events already.
    mutating func add(
        _ event: Event, nid known: EventNID?, isChained: Bool = false, flags: StoredEvent.Flags, stateBefore: StateNID,
        previous: [EventNID], auth: [EventNID], redactedBy: EventNID? = nil, transactionKey: String? = nil
    ) async throws -> StoredEvent {
        let database = context.database
        let nid = try await known.orNew(database)
        let after = try await stateAfter(event, nid, in: stateBefore)
        var chain: ChainPlace?
        if !isChained, event.isState {
            chain = try await chains.place(nid, authorisedBy: auth, replacing: after.replaces, database, reader)
        }
        let verdict = try await context.notifications.judge(event, in: &self, reader)
        record.depth += 1
        let stickyUntil = StickyEvents.end(of: event, receivedAt: context.surroundings.now())
        let stored = StoredEvent(
            nid: nid, eventID: event.eventID, room: record.nid, position: nil, orderDepth: record.depth,
            type: try await database.number(ofType: event.type),
            sender: try await database.number(ofUser: event.sender), stateKey: after.key, stateBefore: stateBefore,
            flags: stickyUntil == nil ? flags : flags.union(.sticky), originServerTS: event.originServerTS,
            redactedBy: redactedBy, replaces: after.replaces,
            chain: chain, previous: previous, auth: auth, transactionKey: transactionKey, cuts: event.clientCuts,
            json: event.json, notifying: verdict.mark, stateAfter: after.key == nil ? nil : after.state)
        var entry = Added(event: stored, parsed: event, placing: known == nil ? .newest : .newestOfOutlier)
        entry.notifications = verdict
        entry.stickyUntil = stickyUntil
        upcoming = (stored, event)
        try await moveOn(to: stored, event, stateAfter: after.state, &entry)
        try await updateFacts(event.stateMapKey)
        if redactedBy == nil, let (parent, type) = Self.relation(of: event) {
            try await relate(stored, to: parent, type: type, event)
        }
        added.append(entry)
        upcoming = nil
        if event.type == "m.room.redaction", let target = event.redacts {
            try await redact(target, by: event, nid, isOurs: flags.contains(.outgoing))
        }
        record.timelineVersion += 1
        return stored
    }

    /// Makes the event a forward extremity in place of those that it names, and takes up the state that follows.
    private mutating func moveOn(
        to stored: StoredEvent, _ event: Event, stateAfter: StateNID, _ entry: inout Added
    ) async throws {
        let before = record.state
        let kept = tips.filter { !stored.previous.contains($0.nid) }
        let isUponAll = kept.isEmpty && stored.stateBefore == before
        tips = kept + [Tip(nid: stored.nid, eventID: stored.eventID, depth: event.depth)]
        record.extremities = tips.map(\.nid)
        if stored.stateBefore == before, kept.isEmpty || stored.flags.contains(.outgoing) {
            record.state = stateAfter
        } else {
            var states = [stateAfter]
            let extremities = try await self.stored(Set(kept.map(\.nid)))
            guard extremities.count == kept.count else {
                throw DatabaseError.corrupt("forward extremities of room \(record.roomID) are missing")
            }
            states += try await self.states(after: extremities)
            record.state = try await merge(states)
        }
        guard record.state != before else { return }
        record.stateVersion += 1
        entry.currentState = record.state
        if isUponAll || stored.stateBefore == before && stored.flags.contains(.outgoing), let key = event.stateMapKey {
            let was = try await self.state(key, in: before)
            known[key] = .some(event)
            if let change = try await membershipChange(event, stored.nid, from: was) { entry.memberships = [change] }
            if key == .joinRules || key == .historyVisibility { write.setOpen(try await isOpen(), record.nid) }
        } else {
            known = [:]
            try await renewFacts()
            entry.memberships += try await membershipDifferences(from: before)
        }
    }

    /// What an event refers to, and how; nil for those that refer to nothing, redacted ones among them.
    static func relation(of event: Event) -> (EventID, String)? {
        guard let relation = event.content["m.relates_to"], let type = relation["rel_type"]?.string,
            type.utf8.count <= 255,
            let parent = relation["event_id"]?.string.flatMap({ EventID($0) })
        else { return nil }
        return (parent, type)
    }

    mutating func relate(
        _ stored: StoredEvent, to parent: EventID, type: String, _ event: Event
    ) async throws {
        write.relate(stored, to: parent, type: type)
        // What comes together with its children isn't in the database yet.
        if let index = added.index(of: parent) { added[index].event = added[index].event.flagged(.hasRelations) }
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
            of: parent, in: record.nid, from: start, backwards: true, limit: 10_000, reader)
        let own = try await context.database.events(children.filter { $0.type == "m.annotation" }.map(\.event), reader)
            .filter { $0.sender == user }
        for stored in own {
            let event = try context.parse(stored, version)
            if event.type == type, event.content["m.relates_to"]?["key"]?.isString(key) == true { return true }
        }
        return false
    }

    mutating func authorize(_ event: Event) async throws {
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
        if let fresh = added[eventID] { return fresh.event.nid }
        return try await context.database.event(eventID)?.nid
    }

    /// What a member event changes; `before` is the one whose place it takes.
    func membershipChange(_ event: Event, _ nid: EventNID, from before: Event?) async throws -> MembershipChange? {
        guard event.type == "m.room.member", let user = event.stateKey.flatMap({ UserID($0) }),
            let membership = Membership(event.content["membership"])
        else { return nil }
        return try await membershipChange(
            of: user, to: membership, nid, from: before.flatMap { Membership($0.content["membership"]) },
            byOther: event.sender != user)
    }

    func membershipChange(
        of user: UserID, to membership: Membership, _ nid: EventNID, from before: Membership?, byOther: Bool
    ) async throws -> MembershipChange {
        MembershipChange(
            user: try await context.database.number(ofUser: user), membership: StoredMembership(membership), event: nid,
            server: try await context.database.number(ofServer: user.server),
            joined: (membership == .join ? 1 : 0) - (before == .join ? 1 : 0),
            ending: Self.ending(membership, after: before, byOther: byOther))
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
    mutating func redact(_ target: EventID, by redaction: Event, _ nid: EventNID, isOurs: Bool) async throws {
        guard let stored = try await storedEvent(target) else {
            // It may be told before what it redacts.
            waitingRedactions[target, default: []].append(nid)
            write.remember(redaction: nid, of: target)
            return
        }
        guard stored.room == record.nid else { return }
        let event = try context.parse(stored, version)
        let levels = try await powerLevels()
        // Other servers accept whatever one server does to its own users' events; who of its users may, it decides itself
        // (Client-Server API, "Redactions"): the author, and those with the power to redact.
        let mayRedact =
            !isOurs || event.sender == redaction.sender || levels.level(of: redaction.sender) >= .finite(levels.redact)
        guard mayRedact, Authorization.redactionApplies(redaction, to: event, powerLevels: levels) else {
            if isOurs { throw MatrixError.forbidden("You may not redact this message.") }
            return
        }
        if let index = added.index(of: target) {
            // It comes with this write, redacted as it is.
            if stored.redactedBy != nil { return }
            added[index].event = stored.redacted(by: nid)
            added[index].notifications = NotificationVerdict()
            added[index].stickyUntil = nil
            write.remember(redaction: nid, of: target)
        } else {
            write.redact(target, by: nid, overwriteAt: context.surroundings.now() + context.keepRedacted)
            write.unindex(
                stored.nid, in: record.nid, timestamp: stored.originServerTS,
                SearchWords.words(type: event.type, content: event.content))
            outdated.append(stored.nid)
        }
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

    /// The same where the state may be another one altogether.
    mutating func renewFacts() async throws {
        let type = try await state(.create)?.content["type"]?.string
        let isEncrypted = try await state(.encryption) != nil
        record.facts?.type = type
        record.facts?.isEncrypted = isEncrypted
    }

    /// Notes the positions that the newest events have got.
    mutating func moveFacts(newest: Int64, bump: Int64?) {
        record.facts?.newest = newest
        if let bump = bump ?? (record.facts?.bump == 0 ? newest : nil) { record.facts?.bump = bump }
    }
}

extension EventNID? {
    /// The number, or one that nobody has had.
    fileprivate func orNew(_ database: Database) async throws -> EventNID {
        if let self { return self }
        return try await database.newEventNumbers(1)
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
