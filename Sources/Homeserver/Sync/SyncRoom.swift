import Database
import MatrixCore

/// One room of a sync: joined, or left.
struct SyncRoom {
    let builder: SyncBuilder
    let room: Room
    let membership: RoomMembership
    let accountData: [AccountDataEntry]
    /// Sticky events that are to be told.
    let stickyEvents: [EventNID]

    private var database: Database { builder.database }
    private var context: RoomContext { builder.context }
    private var filter: SyncFilter { builder.filter }
    private var isJoined: Bool { membership.membership == .join }
    private var tree: StateTree { StateTree(rows: database.stateRows, room: room.nid) }
    /// Where the user left the room; nil for those who are in it, or never were.
    var leftAt: Int64?
    /// What is told ends here: with the leaving, for who has left.
    private var upTo: Int64 { min(builder.upTo.position, leftAt ?? .max) }

    private var glance: RoomGlance { context.glances.of(room.nid, asOf: builder.lastChanges[room.nid]) }

    /// Writes the room as a member of the object that is being written, if there is anything to tell of it.
    ///
    /// - Returns: whether it was written.
    func write(into writer: inout JSONWriter, _ reader: any Reader) async throws -> Bool {
        let knew = try await wasJoinedBefore(reader)
        if !isJoined, !knew,
            membership.forgotten || leftAt.map({ builder.since != nil && $0 <= builder.sincePosition }) ?? true
        {
            return try await writeEnd(into: &writer, reader)
        }
        let timeline = try await timeline(after: knew ? builder.sincePosition : nil, reader)
        let isNew = !knew || builder.fullState
        let heroes = isJoined && (isNew || changesMembers(timeline.events)) ? try await heroes(reader) : nil
        let state = try await state(at: timeline, knew: knew, heroes ?? [], reader)
        let (receipts, ownMoved) =
            isJoined ? try await receipts(after: knew ? builder.sincePosition : 0, reader) : ([], false)
        let typing = isJoined ? builder.typingChanged(in: room.nid, isNew: !knew) : nil
        // What was set before the user was in the room.
        let accountData =
            knew || builder.since == nil
            ? accountData
            : try await database.accountData(
                of: builder.requester.nid, in: room.nid, upTo: builder.upTo.position, reader)
        let sticky =
            isJoined
            ? try await StickyEvents.read(
                stickyEvents, besides: Set(timeline.events.map(\.nid)), for: builder.requester.nid, context, reader)
            : []
        let own = accountData.filter { filter.roomAccountData.events.admits(type: $0.type) }
        guard
            isNew || !timeline.events.isEmpty || !state.isEmpty || !receipts.isEmpty || typing != nil || !own.isEmpty
                || ownMoved || !sticky.isEmpty
        else { return false }

        writer.key(room.roomID.string)
        writer.beginObject()
        if isJoined, heroes != nil || changesMembers(state) {
            try await writeSummary(heroes, into: &writer, reader)
        }
        writer.key("timeline")
        writer.beginObject()
        writer.key("events")
        try await write(timeline.events, timeline.memberships, into: &writer, reader)
        writer.key("limited")
        writer.bool(timeline.isLimited)
        if let before = timeline.before {
            writer.key("prev_batch")
            writer.string(PaginationToken(before).text)
        }
        writer.endObject()
        writer.key(builder.wantsStateAfter ? "state_after" : "state")
        writer.beginObject()
        writer.key("events")
        try await write(state, [:], into: &writer, reader)
        writer.endObject()
        if isJoined { try await writeUnread(into: &writer, reader) }
        if isJoined { writeEphemeral(receipts: receipts, typing: typing, into: &writer) }
        if !sticky.isEmpty {
            writer.key("msc4354_sticky")
            writer.beginObject()
            writer.key("events")
            try await write(sticky, [:], into: &writer, reader)
            writer.endObject()
        }
        if !own.isEmpty {
            writer.key("account_data")
            SyncBuilder.write(own, into: &writer)
        }
        writer.endObject()
        return true
    }

    /// The same; what was written of a room that can't be told to its end is taken back.
    func write(safelyInto writer: inout JSONWriter, _ reader: any Reader) async throws -> Bool {
        let mark = writer.mark
        do {
            var part = self
            if !isJoined { part.leftAt = try await context.departure(membership, room.version, reader) }
            return try await part.write(into: &writer, reader)
        } catch {
            writer.rewind(to: mark)
            throw error
        }
    }

    private func write(
        _ events: [StoredEvent], _ memberships: [EventNID: Membership], into writer: inout JSONWriter,
        _ reader: any Reader
    ) async throws {
        var visibility = try await EventVisibility(
            context, room: room, user: builder.requester.userID, nid: builder.requester.nid, access: access,
            reader: reader)
        let page = try await builder.service.events.page(
            events, for: builder.requester.nid, memberships: memberships, seenBy: &visibility, reader)
        writer.beginArray()
        for event in page.events {
            try builder.service.events.write(
                event, of: page, version: room.version, for: builder.audience, into: &writer)
        }
        writer.endArray()
    }

    /// How far the user may read.
    private var access: RoomAccess {
        RoomAccess(leftAt: isJoined ? nil : membership.position, membership: membership.membership)
    }

    /// Writes what is told to those who were not in the room when their membership ended: an invitation that was turned down or
    /// taken back, a ban of somebody who had left. That is their own membership, and nothing of the room.
    private func writeEnd(into writer: inout JSONWriter, _ reader: any Reader) async throws -> Bool {
        guard let own = try await database.events([membership.event], reader).first, own.replaces != nil else {
            return false
        }
        writer.key(room.roomID.string)
        writer.beginObject()
        writer.key("timeline")
        writer.beginObject()
        writer.key("events")
        try await write([own], [:], into: &writer, reader)
        writer.key("limited")
        writer.bool(false)
        writer.endObject()
        writer.key(builder.wantsStateAfter ? "state_after" : "state")
        writer.value(["events": []])
        writer.endObject()
        return true
    }

    /// Whether the client has been told of the room as joined.
    private func wasJoinedBefore(_ reader: any Reader) async throws -> Bool {
        guard builder.since != nil else { return false }
        if isJoined, membership.position <= builder.sincePosition { return true }
        return try await context.wasJoined(builder.requester.userID, in: room, at: builder.sincePosition, reader)
    }

    // MARK: - Timeline

    /// - Parameter after: the position up to which the client knows the room; nil if it doesn't.
    private func timeline(after: Int64?, _ reader: any Reader) async throws -> RoomTimeline {
        guard filter.timeline.admits(room.roomID) else { return RoomTimeline() }
        return try await RoomTimeline.read(
            .init(
                room: room, membership: membership, leftAt: leftAt, limit: filter.timelineLimit,
                filter: filter.timeline, after: after,
                upTo: upTo, endsAtHiddenState: true, glance: glance),
            for: builder.requester, context, reader)
    }

    // MARK: - State

    /// The state that the client needs to know what held before the timeline's first event.
    private func state(
        at timeline: RoomTimeline, knew: Bool, _ heroes: [UserNID], _ reader: any Reader
    ) async throws -> [StoredEvent] {
        guard filter.state.admits(room.roomID) else { return [] }
        let now = try await glance.state(at: upTo, reader)
        let start = builder.wantsStateAfter ? now : timeline.events.first?.stateBefore ?? now
        let known = knew ? try await glance.state(at: builder.sincePosition, reader) : StateNID(0)
        // A full state is told whole, whatever the client knows.
        let differences = try await tree.differences(from: builder.fullState ? StateNID(0) : known, to: start, reader)
        var numbers = differences.compactMap(\.new)
        if filter.lazyLoadsMembers {
            let replaced = Set(differences.filter { $0.old != nil }.compactMap(\.new))
            numbers = try await lazily(
                numbers, replacing: knew && !builder.fullState ? replaced : nil, timeline, heroes, start, reader)
        }
        let shown = builder.wantsStateAfter ? [] : Set(timeline.events.map(\.nid))
        var chosen: [StoredEvent] = []
        for event in try await database.events(numbers, reader) where !shown.contains(event.nid) {
            if try await filter.state.admits(event, context, room.version) { chosen.append(event) }
        }
        return chosen
    }

    /// Leaves out the members that the timeline doesn't need (Client-Server API, "Lazy-loading room members").
    ///
    /// - Parameter replacing: of a room that the client knows, those of the changes that take another one's place. None of what happened
    ///   since is left out then, or the client would never hear who came and who left behind a gap, and with whom to share keys.
    ///   (Members that this server itself hadn't known are no news: they come all at once.)
    private func lazily(
        _ numbers: [EventNID], replacing: Set<EventNID>?, _ timeline: RoomTimeline, _ heroes: [UserNID],
        _ state: StateNID, _ reader: any Reader
    ) async throws -> [EventNID] {
        let memberType = EventType("m.room.member")
        let type = try await database.existingNumber(ofType: memberType)
        let since = builder.sincePosition
        var chosen = try await database.events(numbers, reader).filter { stored in
            if stored.type != type { return true }
            guard let replacing else { return false }
            return replacing.contains(stored.nid) || stored.position ?? 0 > since
        }.map(\.nid)
        let changed = Set(chosen)
        var users = Set(timeline.events.map(\.sender))
        users.insert(builder.requester.nid)
        users.formUnion(heroes)
        let client = LazyMembers.Client(
            user: builder.requester.nid, deviceID: builder.requester.deviceID, room: room.nid)
        let startsAnew = builder.since == nil || builder.fullState
        let known = startsAnew ? [:] : builder.service.lazyMembers.known(to: client, at: builder.sincePosition)
        var sent: [UserNID: LazyMembers.Sent] = [:]
        let names = try await database.users(Array(users))
        let keys = try await database.existingNumbers(ofStateKeys: names.values.map { .member($0) })
        for (user, name) in names.sorted(by: { $0.key < $1.key }) {
            guard let key = keys[.member(name)], let nid = try await tree.event(for: key, in: state, reader) else {
                continue
            }
            if known[user] == nid, !filter.includesRedundantMembers { continue }
            if !changed.contains(nid) { chosen.append(nid) }
            sent[user] = LazyMembers.Sent(event: nid, upTo: builder.upTo.position)
        }
        builder.service.lazyMembers.note(sent, for: client, since: startsAnew ? nil : builder.sincePosition)
        return chosen
    }

    private func changesMembers(_ events: [StoredEvent]) -> Bool {
        events.contains { event in
            event.stateKey != nil
                && ((try? context.parse(event, room.version))?.type == "m.room.member")
        }
    }

    // MARK: - Summary

    private func heroes(_ reader: any Reader) async throws -> [UserNID] {
        if try await hasName(reader) { return [] }
        return try await RoomHeroes.find(in: room.nid, for: builder.requester.nid, database, reader)
    }

    /// Whether the room has a name or an alias to be called by.
    private func hasName(_ reader: any Reader) async throws -> Bool {
        let keys = [(StateKey("m.room.name"), "name"), (StateKey("m.room.canonical_alias"), "alias")]
        let numbers = try await database.existingNumbers(ofStateKeys: keys.map(\.0))
        let state = try await glance.state(at: upTo, reader)
        for (key, member) in keys {
            guard let number = numbers[key], let nid = try await tree.event(for: number, in: state, reader),
                let stored = try await database.events([nid], reader).first
            else { continue }
            if try context.parse(stored, room.version).content[member]?.string?.isEmpty == false { return true }
        }
        return false
    }

    private func writeSummary(
        _ known: [UserNID]?, into writer: inout JSONWriter, _ reader: any Reader
    ) async throws {
        let joined = try await glance.joinedCount(reader)
        let invited = try await glance.invitedCount(reader)
        let heroes = if let known { known } else { try await self.heroes(reader) }
        let names = try await database.users(heroes)
        writer.key("summary")
        writer.beginObject()
        writer.key("m.joined_member_count")
        writer.integer(joined)
        writer.key("m.invited_member_count")
        writer.integer(invited)
        if !heroes.isEmpty {
            writer.key("m.heroes")
            writer.beginArray()
            for hero in heroes { if let name = names[hero] { writer.string(name.string) } }
            writer.endArray()
        }
        writer.endObject()
    }

    // MARK: - What isn't read

    private func writeUnread(into writer: inout JSONWriter, _ reader: any Reader) async throws {
        let counts = try await builder.service.unread.counts(
            for: builder.requester.userID, builder.requester.nid, in: room, membership: membership,
            upTo: builder.upTo.position, reader)
        func write(_ count: UnreadCount, _ writer: inout JSONWriter) {
            writer.beginObject()
            writer.key("highlight_count")
            writer.integer(count.highlights)
            writer.key("notification_count")
            writer.integer(count.notifications)
            writer.endObject()
        }
        var total = UnreadCount()
        for (thread, count) in counts where !filter.timeline.separatesThreads || thread.rawValue == 0 { total += count }
        writer.key("unread_notifications")
        write(total, &writer)
        guard filter.timeline.separatesThreads else { return }
        let roots = try await database.events(counts.keys.filter { $0.rawValue != 0 }.sorted(), reader)
        if roots.isEmpty { return }
        writer.key("unread_thread_notifications")
        writer.beginObject()
        for root in roots {
            writer.key(root.eventID.string)
            write(counts[root.nid] ?? UnreadCount(), &writer)
        }
        writer.endObject()
    }

    // MARK: - Ephemeral events

    /// The contents of `m.receipt` events; and whether the user has read further.
    private func receipts(after: Int64, _ reader: any Reader) async throws -> ([JSON], ownMoved: Bool) {
        let receipts = try await glance.receipts(after: after, upTo: builder.upTo.position, reader)
            .filter { $0.isShown(to: builder.requester.nid) }
        let ownMoved = receipts.contains { $0.user == builder.requester.nid }
        guard !receipts.isEmpty, filter.ephemeral.admits(room.roomID),
            filter.ephemeral.events.admits(type: "m.receipt")
        else { return ([], ownMoved) }
        return (try await ReceiptContent.contents(receipts, database), ownMoved)
    }

    private func writeEphemeral(receipts: [JSON], typing: [UserID]?, into writer: inout JSONWriter) {
        let typing = filter.ephemeral.events.admits(type: "m.typing") ? typing : nil
        if receipts.isEmpty, typing == nil { return }
        writer.key("ephemeral")
        writer.beginObject()
        writer.key("events")
        writer.beginArray()
        for content in receipts { writer.value(["type": "m.receipt", "content": content]) }
        if let typing {
            writer.value(["type": "m.typing", "content": ["user_ids": .array(typing.map { .string($0.string) })]])
        }
        writer.endArray()
        writer.endObject()
    }
}
