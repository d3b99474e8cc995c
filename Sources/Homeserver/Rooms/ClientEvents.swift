import Database
import MatrixCore

/// Writes events as clients get them: the stored bytes without what only servers need, with the event's ID and a freshly
/// made `unsigned` (Client-Server API, "Room event format").
struct ClientEvents: Sendable {
    let context: RoomContext

    /// What a page of events needs besides itself, read together.
    struct Page: Sendable {
        let events: [StoredEvent]
        /// Replaced state events, and redactions, by their numbers.
        fileprivate let related: [EventNID: StoredEvent]
        /// What is shown of the children of events that have some.
        fileprivate let children: [EventNID: Database.RelationSummary]
        /// What the reader was in the room, at each of them.
        fileprivate let memberships: [EventNID: Membership]
        /// Those that are shown as if they were redacted, because their senders are erased.
        fileprivate let pruned: Set<EventNID>
        /// State events of which isn't told whose place they took: the reader may not see that.
        fileprivate let withheld: Set<EventNID>
        /// The number of the type of redactions; nil if there are none yet.
        fileprivate let redactionType: EventTypeNID?
    }

    /// Whose answer it is.
    struct Audience: Sendable {
        let user: UserNID
        let deviceID: String
        let now: Int64
        /// The parts of events that are wanted; nil: all.
        let fields: EventFields?
        /// Whether events are wanted as servers exchange them.
        let isFederationFormat: Bool

        init(_ requester: Requester, now: Int64, fields: EventFields? = nil, isFederationFormat: Bool = false) {
            self.fields = fields
            self.isFederationFormat = isFederationFormat
            user = requester.nid
            deviceID = requester.deviceID
            self.now = now
        }
    }

    /// Reads what the events refer to, for a reader who may see all of it: an invitation, which is the reader's own. One query
    /// for all of them.
    func page(
        _ events: [StoredEvent], for user: UserNID, memberships: [EventNID: Membership] = [:], _ reader: any Reader
    ) async throws -> Page {
        var nobodys: EventVisibility?
        return try await page(events, for: user, memberships: memberships, &nobodys, reader)
    }

    /// Reads what the events refer to, as far as somebody may see it.
    func page(
        _ events: [StoredEvent], for user: UserNID, memberships: [EventNID: Membership] = [:],
        seenBy visibility: inout EventVisibility, _ reader: any Reader
    ) async throws -> Page {
        var sight: EventVisibility? = visibility
        defer { if let sight { visibility = sight } }
        return try await page(events, for: user, memberships: memberships, &sight, reader)
    }

    private func page(
        _ events: [StoredEvent], for user: UserNID, memberships: [EventNID: Membership],
        _ visibility: inout EventVisibility?, _ reader: any Reader
    ) async throws -> Page {
        var children: [EventNID: Database.RelationSummary] = [:]
        var wanted: [EventNID] = []
        for event in events {
            if let replaced = event.replaces { wanted.append(replaced) }
            if let redaction = event.redactedBy { wanted.append(redaction) }
            if event.redactedBy == nil, event.flags.contains(.hasRelations),
                let summary = try await summarise(event, for: user, &visibility, reader)
            {
                children[event.nid] = summary
                wanted += [summary.edit, summary.thread?.latest].compactMap { $0 }
            }
        }
        let read = wanted.isEmpty ? [] : try await context.database.events(wanted, reader)
        let pruned = try await context.erasures.pruned(events + read, for: user, reader)
        let related = Dictionary(read.map { ($0.nid, $0) }) { $1 }
        var withheld: Set<EventNID> = []
        for event in events + read {
            guard let replaced = event.replaces.flatMap({ related[$0] }) else { continue }
            if try await visibility?.allowsPrevious(of: event, replaced) == false { withheld.insert(event.nid) }
        }
        return Page(
            events: events, related: related, children: children, memberships: memberships, pruned: pruned,
            withheld: withheld, redactionType: try await redactionType())
    }

    private func redactionType() async throws -> EventTypeNID? {
        let type = EventType("m.room.redaction")
        return try await context.database.existingNumber(ofType: type)
    }

    private func summarise(
        _ event: StoredEvent, for user: UserNID, _ visibility: inout EventVisibility?, _ reader: any Reader
    ) async throws -> Database.RelationSummary? {
        guard visibility != nil else {
            return try await context.database.relationSummary(of: event, for: user, reader)
        }
        return try await summary(of: event, for: user, &visibility!, reader)
    }

    /// Writes one event of a page as an object, as the reader wants it.
    func write(
        _ event: StoredEvent, of page: Page, version: RoomVersion, for reader: Audience, into writer: inout JSONWriter
    ) throws {
        if reader.isFederationFormat {
            let isRedacted = event.redactedBy.flatMap { page.related[$0] } != nil
            writer.raw(
                isRedacted || page.pruned.contains(event.nid)
                    ? try context.parse(event, version).redacted().json : event.json)
        } else if let fields = reader.fields {
            var whole = JSONWriter()
            try write(event, of: page, version: version, for: reader, into: &whole, isNested: false)
            writer.value(fields.select(from: try JSONDocument(parsing: whole.bytes, limits: .own).root.json))
        } else {
            try write(event, of: page, version: version, for: reader, into: &writer, isNested: false)
        }
    }

    /// Writes an event in the format of clients.
    private func write(
        _ event: StoredEvent, of page: Page, version: RoomVersion, for reader: Audience, into writer: inout JSONWriter,
        isNested: Bool
    ) throws {
        let redaction = event.redactedBy.flatMap { page.related[$0] }
        if redaction != nil || page.pruned.contains(event.nid) {
            let pruned = try context.parse(event, version).redacted()
            appendKept(pruned.json, pruned.clientCuts, into: &writer)
        } else if event.type == page.redactionType {
            try appendRedaction(event, version, into: &writer)
        } else {
            appendKept(event.json, event.cuts, into: &writer)
        }
        writer.key(plain: "event_id")
        writer.string(event.eventID.string)
        writer.key(plain: "unsigned")
        writer.beginObject()
        writer.key(plain: "age")
        writer.integer(reader.now.elapsed(since: event.originServerTS))
        if event.sender == reader.user, let delayID = event.delayID {
            writer.key(plain: "org.matrix.msc4140.delay_id")
            writer.string(String(delayID))
        } else if event.sender == reader.user, let id = event.transactionID(of: reader.deviceID) {
            writer.key(plain: "transaction_id")
            writer.string(id)
        }
        if !isNested, let membership = page.memberships[event.nid] {
            writer.key(plain: "membership")
            writer.string(membership.rawValue)
        }
        if event.flags.contains(.sticky), event.redactedBy == nil,
            let end = StickyEvents.end(of: try context.parse(event, version), receivedAt: reader.now), end > reader.now
        {
            writer.key(plain: "msc4354_sticky_duration_ttl_ms")
            writer.integer(end - reader.now)
        }
        if !page.withheld.contains(event.nid), let replaced = event.replaces.flatMap({ page.related[$0] }) {
            let content = try context.parse(replaced, version)
            let isWhole = replaced.redactedBy == nil && !page.pruned.contains(replaced.nid)
            let shown = isWhole ? content : content.redacted()
            writer.key(plain: "prev_content")
            writer.raw(shown.content.raw)
            writer.key(plain: "replaces_state")
            writer.string(replaced.eventID.string)
        }
        if !isNested, let children = page.children[event.nid] {
            try writeChildren(children, of: page, version, reader, &writer)
        }
        if let redaction {
            writer.key(plain: "redacted_because")
            try appendRedaction(redaction, version, into: &writer)
            writer.key(plain: "event_id")
            writer.string(redaction.eventID.string)
            writer.endObject()
        }
        writer.endObject()
        if version.rules.roomIDs == .createEventHash, event.stateBefore?.rawValue == 0 {
            // The create event, whose room ID is not in its bytes.
            writer.key(plain: "room_id")
            writer.string(try context.parse(event, version).roomID.string)
        }
        writer.endObject()
    }

    /// Writes the bundled aggregations (Client-Server API, "Aggregations of child events").
    private func writeChildren(
        _ children: Database.RelationSummary, of page: Page, _ version: RoomVersion, _ reader: Audience,
        _ writer: inout JSONWriter
    ) throws {
        let edit = children.edit.flatMap { page.related[$0] }
        let thread = children.thread.flatMap { thread in page.related[thread.latest].map { (thread, $0) } }
        if edit == nil, thread == nil, children.references.isEmpty { return }
        writer.key(plain: "m.relations")
        writer.beginObject()
        if let edit {
            writer.key(plain: "m.replace")
            try write(edit, of: page, version: version, for: reader, into: &writer, isNested: true)
        }
        if let (thread, latest) = thread {
            writer.key(plain: "m.thread")
            writer.beginObject()
            writer.key(plain: "latest_event")
            try write(latest, of: page, version: version, for: reader, into: &writer, isNested: true)
            writer.key(plain: "count")
            writer.integer(thread.count)
            writer.key(plain: "current_user_participated")
            writer.bool(thread.participated)
            writer.endObject()
        }
        if !children.references.isEmpty {
            writer.key(plain: "m.reference")
            writer.value(["chunk": .array(children.references.map { ["event_id": .string($0.string)] })])
        }
        writer.endObject()
    }

    /// Writes a redaction without the last brace. What it redacts stands both where its room version says and where the others
    /// do, for clients that know one of them (room version 11, "Moving the redacts property").
    private func appendRedaction(
        _ event: StoredEvent, _ version: RoomVersion, into writer: inout JSONWriter
    ) throws {
        guard let target = try context.parse(event, version).redacts else {
            return appendKept(event.json, event.cuts, into: &writer)
        }
        var kept = JSONWriter(capacity: event.json.count)
        appendKept(event.json, event.cuts, into: &kept)
        kept.endObject()
        var json = try JSONDocument(parsing: kept.bytes, limits: .own).root.json
        json["redacts"] = .string(target.string)
        json["content"]?["redacts"] = .string(target.string)
        writer.raw(json.encoded().dropLast())
    }

    /// Writes the parts of an event that are not cut, without the last brace.
    private func appendKept(
        _ json: [UInt8], _ cuts: [Range<Int>], into writer: inout JSONWriter
    ) {
        var start = 0
        var isFirst = true
        func keep(_ range: Range<Int>, _ writer: inout JSONWriter) {
            if range.isEmpty { return }
            if isFirst { writer.raw(json[range]) } else { writer.append(json[range]) }
            isFirst = false
        }
        for cut in cuts {
            keep(start..<cut.lowerBound, &writer)
            start = cut.upperBound
        }
        keep(start..<max(start, json.count - 1), &writer)
    }

    /// Writes a state event in the stripped form (Client-Server API, "Stripped state").
    func writeStripped(_ event: Event, into writer: inout JSONWriter) {
        writer.beginObject()
        writer.key("content")
        writer.raw(event.content.raw)
        writer.key("sender")
        writer.string(event.sender.string)
        writer.key("state_key")
        writer.string(event.stateKey ?? "")
        writer.key("type")
        writer.string(event.type)
        writer.endObject()
    }
}
