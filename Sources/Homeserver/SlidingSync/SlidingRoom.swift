import Database
import MatrixCore

/// One room of an answer of sliding sync (MSC4186, "Room results").
struct SlidingRoom {
    let builder: SlidingBuilder
    let room: Room
    let shown: SlidingLists.Shown
    /// What the connection has told of it; nil: nothing.
    let sent: SentRoom?
    /// The number of the config that it is told by now.
    let configNumber: Int64
    let isDirect: Bool
    /// Whether receipts are wanted.
    let wantsReceipts: Bool

    private var service: SlidingSyncService { builder.service }
    private var database: Database { builder.service.database }
    private var context: RoomContext { builder.service.context }
    private var requester: Requester { builder.requester }
    private var membership: RoomMembership { shown.membership }
    private var isJoined: Bool { membership.membership == .join }
    private var required: RequiredState { shown.config.required }
    private var tree: StateTree { StateTree(rows: database.stateRows, room: room.nid) }
    private var glance: RoomGlance { context.glances.of(room.nid, asOf: builder.lastChanges[room.nid]) }
    /// What is told ends here: with the leaving, for who has left.
    private var upTo: Int64 { min(builder.upTo.position, leftAt ?? .max) }
    /// Where the user left the room; nil for those who are in it, or never were.
    var leftAt: Int64?

    /// What an answer tells of the room.
    struct Result {
        /// The encoded room; nil if there is nothing to tell but receipts.
        var bytes: [UInt8]?
        /// What the connection has told of it then.
        var sent: SentRoom
        /// The content of an `m.receipt` event.
        var receipts: JSON?
        /// Who has sent what the timeline shows.
        var senders: Set<UserNID> = []
        /// Whose member events are told, and who gives the room its name.
        var members: Set<UserID> = []
    }

    /// The people whom the room shows for the first time: everybody, when it is told first; with lazily loaded members those whose
    /// events are shown, who are members that are told, or who give the room its name (MSC4262, "Lazy-loading user profiles").
    /// Later, whose member events come along: with lazily loaded members those are who had nothing to say before.
    func people(_ result: Result, _ reader: any Reader) async throws -> Set<UserNID> {
        guard isJoined else { return [] }
        if knownUpTo == nil, !required.lazyMembers {
            return Set(try await database.users(in: room.nid, .join, limit: ProfileUpdates.most, reader))
        }
        var people = Set(try await database.existingNumbers(ofUsers: Array(result.members)).values)
        if knownUpTo == nil { people.formUnion(result.senders) }
        // Of somebody with whom no room is shared nothing would be told later.
        return Set(try await database.members(among: people.sorted(), in: room.nid, reader))
    }

    /// - Returns: nil if there is nothing to tell.
    func build(_ reader: any Reader) async throws -> Result? {
        switch membership.membership {
        case .join: return try await buildWhole(reader)
        case .invite, .knock: return try await buildStripped(reader)
        case .leave, .ban:
            let leftAt = try await context.departure(membership, room.version, reader)
            // An invitation that was turned down or taken back, or a ban of somebody who had left.
            guard let leftAt, leftAt > sent?.position ?? 0 else { return try await buildStripped(reader) }
            var part = self
            part.leftAt = leftAt
            return try await part.buildWhole(reader)
        }
    }

    /// What is told of who is not in the room.
    private func buildStripped(_ reader: any Reader) async throws -> Result? {
        if let sent, membership.position <= sent.position { return nil }
        var writer = JSONWriter(capacity: 2_048)
        writer.beginObject()
        if sent?.flags.contains(.stripped) != true {
            writer.key("initial")
            writer.bool(true)
        }
        writeCommon(bump: membership.position, into: &writer)
        writer.key("stripped_state")
        try await StrippedState.write(membership, room, service.events, into: &writer, reader)
        if membership.membership == .invite || membership.membership == .knock {
            // The name that clients know today. They take whatever has it for an invitation.
            writer.key("invite_state")
            try await StrippedState.write(membership, room, service.events, into: &writer, reader)
        } else {
            // By this they know that it is over.
            writer.key("required_state")
            writer.beginArray()
            var part = self
            part.leftAt = membership.position
            try await part.write(
                events: try await database.events([membership.event], reader), [:], into: &writer, reader)
            writer.endArray()
        }
        writer.endObject()
        return Result(
            bytes: writer.bytes,
            sent: SentRoom(position: builder.upTo.position, told: 0, config: configNumber, flags: .stripped))
    }

    private func writeCommon(bump: Int64?, into writer: inout JSONWriter) {
        writer.key("membership")
        writer.string(membership.membership.name)
        if let bump {
            writer.key("bump_stamp")
            writer.integer(bump)
        }
        if !shown.lists.isEmpty {
            writer.key("lists")
            writer.value(.array(shown.lists.map { .string($0) }))
        }
    }

    // MARK: - Rooms the user is in, or was

    /// Up to where the client knows the room as one that the user is in; nil if it doesn't.
    private var knownUpTo: Int64? { sent.flatMap { $0.flags.contains(.joined) ? $0.position : nil } }

    private func buildWhole(_ reader: any Reader) async throws -> Result? {
        let timeline = try await timeline(reader)
        let changes = try await changes(at: timeline, reader)
        let (receipts, ownMoved) = try await receipts(timeline, reader)
        let isNew = knownUpTo == nil
        let toldDirect = sent?.flags.contains(.direct) ?? false
        let directChanged = isNew ? isDirect : isDirect != toldDirect
        var flags: SentRoom.Flags = isJoined ? .joined : []
        if isDirect { flags.insert(.direct) }
        if wantsReceipts { flags.insert(.receipts) }
        let result = SentRoom(position: builder.upTo.position, told: timeline.told, config: configNumber, flags: flags)
        let hasNews =
            isNew || !isJoined || !timeline.page.events.isEmpty || timeline.page.isLimited || !changes.isEmpty
            || directChanged || ownMoved
        guard hasNews else {
            return receipts.map { Result(bytes: nil, sent: result, receipts: $0) }
        }
        var writer = JSONWriter(capacity: 8_192)
        writer.beginObject()
        if isNew {
            writer.key("initial")
            writer.bool(true)
        }
        writeCommon(bump: bump(isNew), into: &writer)
        if directChanged || isNew && isDirect {
            writer.key("is_dm")
            writer.bool(isDirect)
        }
        try await changes.write(into: &writer)
        try await write(timeline, isNew: isNew, into: &writer, reader)
        writer.key("required_state")
        writer.beginArray()
        try await write(events: changes.events, [:], into: &writer, reader)
        for key in changes.removed { writer.value(["type": .string(key.type), "state_key": .string(key.key)]) }
        writer.endArray()
        if isJoined { try await writeCounts(changes, into: &writer, reader) }
        writer.endObject()
        return Result(
            bytes: writer.bytes, sent: result, receipts: receipts, senders: Set(timeline.page.events.map(\.sender)),
            members: try members(of: changes))
    }

    /// `bump_stamp`, if the client doesn't know it.
    private func bump(_ isNew: Bool) -> Int64? {
        guard isJoined else { return membership.position }
        guard let bump = builder.facts[room.nid]?.bump else { return isNew ? membership.position : nil }
        return isNew || bump > knownUpTo ?? 0 ? bump : nil
    }

    /// Who is or was in the room by the member events that are told, and who gives it its name.
    private func members(of changes: Changes) throws -> Set<UserID> {
        guard builder.request.extensions.profiles != nil else { return [] }
        var found = Set(changes.heroes?.compactMap { $0["user_id"]?.stringValue.flatMap { UserID($0) } } ?? [])
        for stored in changes.events {
            let event = try context.parse(stored, room.version)
            if event.type == "m.room.member", let user = event.stateKey.flatMap({ UserID($0) }) { found.insert(user) }
        }
        return found
    }

    // MARK: - Timeline

    private struct Timeline {
        var page: RoomTimeline
        var isExpanded = false
        /// How many of the newest events the client has got then, without a gap.
        var told: Int64
    }

    /// MSC4186, "Changes to `timeline_limit`".
    private func timeline(_ reader: any Reader) async throws -> Timeline {
        let limit = shown.config.timelineLimit
        func read(after: Int64?) async throws -> RoomTimeline {
            try await RoomTimeline.read(
                .init(
                    room: room, membership: membership, leftAt: leftAt, limit: limit, after: after, upTo: upTo,
                    glance: glance),
                for: requester,
                context, reader)
        }
        guard let known = knownUpTo, let sent else {
            let page = try await read(after: nil)
            return Timeline(page: page, told: page.isLimited ? Int64(page.events.count) : SentRoom.all)
        }
        if isJoined, Int64(limit) > sent.told {
            let page = try await read(after: nil)
            let old = page.events.count { ($0.position ?? 0) <= known }
            if Int64(old) > sent.told {
                return Timeline(
                    page: page, isExpanded: true, told: page.isLimited ? Int64(page.events.count) : SentRoom.all)
            }
            if old > 0 || !page.isLimited {
                // The client has got all of the older ones.
                var fresh = page
                fresh.events.removeAll { ($0.position ?? 0) <= known }
                fresh.isLimited = false
                fresh.before = page.before
                let told = page.isLimited ? sent.told + Int64(fresh.events.count) : SentRoom.all
                return Timeline(page: fresh, told: told)
            }
        }
        let page = try await read(after: known)
        let count = Int64(page.events.count)
        return Timeline(page: page, told: page.isLimited ? count : min(sent.told + count, SentRoom.all))
    }

    private func write(
        _ timeline: Timeline, isNew: Bool, into writer: inout JSONWriter, _ reader: any Reader
    ) async throws {
        guard isNew || !timeline.page.events.isEmpty || timeline.page.isLimited else { return }
        writer.key("timeline")
        writer.beginArray()
        try await write(events: timeline.page.events, timeline.page.memberships, into: &writer, reader)
        writer.endArray()
        writer.key("limited")
        writer.bool(timeline.page.isLimited)
        if timeline.isExpanded {
            for name in ["expanded_timeline", "unstable_expanded_timeline"] {
                writer.key(name)
                writer.bool(true)
            }
        }
        writer.key("num_live")
        let since = builder.since?.place.position
        writer.integer(since.map { since in timeline.page.events.count { ($0.position ?? 0) > since } } ?? 0)
        if let before = timeline.page.before {
            writer.key("prev_batch")
            writer.string(PaginationToken(before).text)
        }
    }

    private func write(
        events: [StoredEvent], _ memberships: [EventNID: Membership], into writer: inout JSONWriter,
        _ reader: any Reader
    ) async throws {
        var visibility = try await EventVisibility(
            context, room: room, user: requester.userID, nid: requester.nid,
            access: RoomAccess(leftAt: leftAt, membership: membership.membership), reader: reader)
        let page = try await service.events.page(
            events, for: requester.nid, memberships: memberships, seenBy: &visibility, reader)
        for event in page.events {
            try service.events.write(event, of: page, version: room.version, for: builder.audience, into: &writer)
        }
    }

    // MARK: - State

    /// What is told of the room's state.
    private struct Changes {
        var events: [StoredEvent] = []
        var removed: [StateKey] = []
        /// nil where it is as the client knows it; JSON null where there is none any more.
        var name: JSON?
        var avatar: JSON?
        var heroes: [JSON]?
        var membersChanged = false

        var isEmpty: Bool {
            events.isEmpty && removed.isEmpty && name == nil && avatar == nil && heroes == nil && !membersChanged
        }

        func write(into writer: inout JSONWriter) async throws {
            if let name {
                writer.key("name")
                writer.value(name)
            }
            if let avatar {
                writer.key("avatar")
                writer.value(avatar)
            }
            if let heroes, !heroes.isEmpty {
                writer.key("heroes")
                writer.value(.array(heroes))
            }
        }
    }

    private static let name = StateKey("m.room.name")
    private static let avatar = StateKey("m.room.avatar")

    private func changes(at timeline: Timeline, _ reader: any Reader) async throws -> Changes {
        let now = try await glance.state(at: upTo, reader)
        var changes = Changes()
        var chosen: [StateKey: EventNID] = [:]
        var nameChanged = true, avatarChanged = true
        if let known = knownUpTo, let sent {
            let before = try await glance.state(at: known, reader)
            let differences = try await tree.differences(from: before, to: now, reader)
            let names = try await database.stateKeys(differences.map(\.key))
            nameChanged = false
            avatarChanged = false
            let old = builder.connection.configs.known[sent.config]
            for difference in differences {
                guard let key = names[difference.key] else { continue }
                let isMember = RoomStateSelection.isMember(key)
                if isMember { changes.membersChanged = true }
                if key == Self.name { nameChanged = true }
                if key == Self.avatar { avatarChanged = true }
                // MSC4186, "Lazy loaded memberships": all changes, unless there is a gap.
                let isWanted =
                    required.matches(key) || isMember && required.lazyMembers && !timeline.page.isLimited
                guard isWanted else { continue }
                if let event = difference.new { chosen[key] = event } else { changes.removed.append(key) }
            }
            if sent.config != configNumber {
                // What is asked for now and was not before.
                for (key, event) in try await service.state.select(required, of: room.nid, at: now, reader)
                where old?.matches(key) != true { chosen[key] = event }
            }
            changes.removed.sort { ($0.type, $0.key) < ($1.type, $1.key) }
        } else {
            chosen = try await service.state.select(required, of: room.nid, at: now, reader)
            changes.membersChanged = true
        }
        if required.lazyMembers { try await addMembers(of: timeline, at: now, to: &chosen, reader) }
        changes.events = try await database.events(chosen.values.sorted(), reader)
        let hasName = try await describe(&changes, at: now, nameChanged: nameChanged, avatarChanged, reader)
        if isJoined, !hasName, changes.membersChanged || nameChanged {
            changes.heroes = try await heroes(at: now, reader)
        }
        return changes
    }

    /// Fills in name and picture where they changed.
    ///
    /// - Returns: whether the room has a name.
    private func describe(
        _ changes: inout Changes, at state: StateNID, nameChanged: Bool, _ avatarChanged: Bool, _ reader: any Reader
    ) async throws -> Bool {
        let name = try await text(Self.name, "name", at: state, reader)
        let isNew = knownUpTo == nil
        if nameChanged { changes.name = name.map { .string($0) } ?? (isNew ? nil : .null) }
        if avatarChanged {
            changes.avatar =
                try await text(Self.avatar, "url", at: state, reader).map { .string($0) } ?? (isNew ? nil : .null)
        }
        return name != nil
    }

    /// A text of the state that isn't empty.
    private func text(
        _ key: StateKey, _ member: String, at state: StateNID, _ reader: any Reader
    ) async throws -> String? {
        guard let number = try await database.existingNumber(ofStateKey: key),
            let nid = try await tree.event(for: number, in: state, reader),
            let stored = try await database.events([nid], reader).first, stored.redactedBy == nil
        else { return nil }
        let text = try context.parse(stored, room.version).content[member]?.string
        return text?.isEmpty == false ? text : nil
    }

    private func heroes(at state: StateNID, _ reader: any Reader) async throws -> [JSON] {
        let found = try await RoomHeroes.find(in: room.nid, for: requester.nid, database, reader)
        let names = try await database.users(found)
        let events = try await members(found.compactMap { names[$0] }, at: state, reader)
        var heroes: [JSON] = []
        for user in found.compactMap({ names[$0] }) {
            var hero: JSON = ["user_id": .string(user.string)]
            if let nid = events[.member(user)], let stored = try await database.events([nid], reader).first,
                stored.redactedBy == nil
            {
                let content = try context.parse(stored, room.version).content
                hero["displayname"] = content["displayname"]?.string.map { .string($0) }
                hero["avatar_url"] = content["avatar_url"]?.string.map { .string($0) }
            }
            heroes.append(hero)
        }
        return heroes
    }

    private func members(
        _ users: [UserID], at state: StateNID, _ reader: any Reader
    ) async throws -> [StateKey: EventNID] {
        var found: [StateKey: EventNID] = [:]
        for (key, number) in try await database.existingNumbers(ofStateKeys: users.map { .member($0) }) {
            if let event = try await tree.event(for: number, in: state, reader) { found[key] = event }
        }
        return found
    }

    /// Adds the members whom the timeline shows and the client hasn't got (MSC4186, "Lazy loaded memberships").
    private func addMembers(
        of timeline: Timeline, at state: StateNID, to chosen: inout [StateKey: EventNID], _ reader: any Reader
    ) async throws {
        var users = Set(try await database.users(Array(Set(timeline.page.events.map(\.sender)))).values)
        for stored in timeline.page.events where stored.stateKey != nil {
            let event = try context.parse(stored, room.version)
            if event.type == "m.room.member", let user = event.stateKey.flatMap({ UserID($0) }) { users.insert(user) }
        }
        let client = builder.lazyClient(in: room.nid)
        let known = knownUpTo.map { service.lazyMembers.known(to: client, at: $0) } ?? [:]
        var told: [UserNID: LazyMembers.Sent] = [:]
        let found = try await members(Array(users), at: state, reader)
        let numbers = try await database.existingNumbers(ofUsers: Array(users))
        for user in users {
            guard let event = found[.member(user)], let number = numbers[user] else { continue }
            if chosen[.member(user)] == nil, known[number] == event { continue }
            chosen[.member(user)] = event
            told[number] = LazyMembers.Sent(event: event, upTo: builder.upTo.position)
        }
        service.lazyMembers.note(told, for: client, since: knownUpTo)
    }

    // MARK: - Counts and receipts

    private func writeCounts(_ changes: Changes, into writer: inout JSONWriter, _ reader: any Reader) async throws {
        if changes.membersChanged {
            writer.key("joined_count")
            writer.integer(try await glance.joinedCount(reader))
            writer.key("invited_count")
            writer.integer(try await glance.invitedCount(reader))
        }
        var total = UnreadCount()
        let counts = try await service.unread.counts(
            for: requester.userID, requester.nid, in: room, membership: membership, upTo: builder.upTo.position, reader)
        for count in counts.values { total += count }
        writer.key("notification_count")
        writer.integer(total.notifications)
        writer.key("highlight_count")
        writer.integer(total.highlights)
    }

    /// The content of an `m.receipt` event, nil if there is nothing new; and whether the user has read further.
    private func receipts(_ timeline: Timeline, _ reader: any Reader) async throws -> (JSON?, ownMoved: Bool) {
        guard isJoined else { return (nil, false) }
        let known = knownUpTo
        if let known {
            let moved = try await glance.receipts(after: known, upTo: upTo, reader).filter {
                $0.isShown(to: requester.nid)
            }
            let ownMoved = moved.contains { $0.user == requester.nid }
            guard wantsReceipts else { return (nil, ownMoved) }
            if sent?.flags.contains(.receipts) == true {
                return (try await ReceiptContent.contents(moved, database).first, ownMoved)
            }
            return (try await firstReceipts(timeline, reader), ownMoved)
        }
        return (wantsReceipts ? try await firstReceipts(timeline, reader) : nil, false)
    }

    /// To a client that begins: the receipts on the events that it is shown, and its user's own.
    private func firstReceipts(_ timeline: Timeline, _ reader: any Reader) async throws -> JSON? {
        var receipts = try await database.receipts(in: room.nid, of: requester.nid, reader).filter {
            $0.position <= upTo
        }
        if let oldest = timeline.page.events.first?.position {
            // Who reads an event does so after it was sent.
            let ids = Set(timeline.page.events.map { ByteString($0.eventID.string) })
            receipts += try await glance.receipts(after: oldest, upTo: upTo, reader).filter {
                $0.type != "m.read.private" && $0.user != requester.nid && ids.contains(ByteString($0.eventID))
            }
        }
        return try await ReceiptContent.contents(receipts, database).first
    }
}
