import Database
import MatrixCore

extension SearchService {
    /// What `POST /search` answers, encoded.
    public func search(_ request: SearchRequest, for requester: Requester) async throws -> [UInt8] {
        let page = try await page(request, for: requester)
        var writer = JSONWriter(capacity: 1_024 * (1 + page.results.count))
        writer.beginObject()
        writer.key("search_categories")
        writer.beginObject()
        writer.key("room_events")
        writer.beginObject()
        writer.key("count")
        writer.integer(page.count)
        writer.key("highlights")
        writer.value(.array(request.words.map { .string(String(decoding: $0, as: UTF8.self)) }))
        writer.key("results")
        writer.raw(try await results(page.results, request, requester))
        if let next = page.next {
            writer.key("next_batch")
            writer.string(next)
        }
        if request.includesState { try await writeState(of: page, requester, &writer) }
        if !request.groups.isEmpty { try await writeGroups(of: page, request.groups, &writer) }
        writer.endObject()
        writer.endObject()
        writer.endObject()
        return writer.bytes
    }

    /// The array of results, encoded, read from one state of the database.
    private func results(
        _ results: [Found], _ request: SearchRequest, _ requester: Requester
    ) async throws -> [UInt8] {
        let audience = ClientEvents.Audience(requester, now: reading.context.surroundings.now())
        return try await reading.database.read { reader in
            var writer = JSONWriter(capacity: 1_024 * results.count)
            var visibilities: [RoomNID: EventVisibility] = [:]
            writer.beginArray()
            for found in results {
                let room = found.place.room
                var visibility: EventVisibility
                if let known = visibilities[room.nid] {
                    visibility = known
                } else {
                    visibility = try await self.reading.visibility(room, found.place.access, requester, reader)
                }
                writer.beginObject()
                writer.key("rank")
                writer.double(found.rank)
                writer.key("result")
                let page = try await self.reading.events.page(
                    [found.event], for: requester.nid, memberships: [found.event.nid: found.membership],
                    seenBy: &visibility, reader)
                try self.reading.events.write(
                    found.event, of: page, version: room.version, for: audience, into: &writer)
                if let surrounding = request.surrounding {
                    writer.key("context")
                    try await self.writeContext(of: found, surrounding, &visibility, requester, &writer, reader)
                }
                writer.endObject()
                visibilities[room.nid] = visibility
            }
            writer.endArray()
            return writer.bytes
        }
    }

    private func writeContext(
        of found: Found, _ wanted: SearchRequest.Surrounding, _ visibility: inout EventVisibility,
        _ requester: Requester, _ writer: inout JSONWriter, _ reader: any Reader
    ) async throws {
        let room = found.place.room
        let position = found.event.position ?? 0
        let at = Database.OrderedPlace(depth: found.event.orderDepth, position: position)
        let before = try await reading.around(
            room, from: .init(depth: at.depth, position: position - 1), backwards: true, wanted.before,
            RoomEventFilter(), &visibility, reader)
        let after = try await reading.around(
            room, from: at, backwards: false, wanted.after, RoomEventFilter(), &visibility, reader)
        writer.beginObject()
        writer.key("start")
        writer.string(PaginationToken(before.end).text)
        writer.key("end")
        writer.string(PaginationToken(after.end).text)
        for (name, events) in [("events_before", before.events), ("events_after", after.events)] {
            writer.key(name)
            try await reading.write(
                events, room, requester, seenBy: &visibility, into: &writer, reader, asArray: true)
        }
        if wanted.includesProfiles {
            writer.key("profile_info")
            writer.value(try await profiles(in: before.events + [found.event] + after.events, found, reader))
        }
        writer.endObject()
    }

    /// The names and pictures that the senders of events had when the result was sent.
    private func profiles(in events: [StoredEvent], _ found: Found, _ reader: any Reader) async throws -> JSON {
        guard let state = found.event.stateBefore else { return [:] }
        let database = reading.database
        let users = try await database.users(Array(Set(events.map(\.sender)))).values.sorted()
        let keys = try await database.existingNumbers(ofStateKeys: users.map { .member($0) })
        let tree = StateTree(rows: database.stateRows, room: found.place.room.nid)
        var profiles: JSONObject = [:]
        for user in users {
            guard let key = keys[.member(user)], let nid = try await tree.event(for: key, in: state, reader),
                let stored = try await database.events([nid], reader).first
            else { continue }
            let content = try reading.context.shownContent(of: stored, found.place.room.version)
            var profile: JSONObject = [:]
            for name in ["displayname", "avatar_url"] {
                if let text = content[name]?.string { profile[name] = .string(text) }
            }
            profiles[user.string] = .object(profile)
        }
        return .object(profiles)
    }

    /// The state of the rooms of the results, as the requester sees it.
    private func writeState(of page: Page, _ requester: Requester, _ writer: inout JSONWriter) async throws {
        writer.key("state")
        writer.beginObject()
        for room in Self.inOrder(page.results.map(\.place.room.roomID)) {
            writer.key(room.string)
            writer.raw(try await reading.state(of: room, for: requester))
        }
        writer.endObject()
    }

    private func writeGroups(
        of page: Page, _ groups: [SearchRequest.Group], _ writer: inout JSONWriter
    ) async throws {
        let senders = try await reading.database.users(Array(Set(page.results.map(\.event.sender))))
        writer.key("groups")
        writer.beginObject()
        for group in Self.inOrder(groups) {
            let names = page.results.map { found in
                group == .room ? found.place.room.roomID.string : senders[found.event.sender]?.string ?? ""
            }
            writer.key(group.rawValue)
            writer.beginObject()
            for (order, name) in Self.inOrder(names.map { ByteString($0) }).enumerated() {
                let results = zip(page.results, names).filter { ByteString($0.1) == name }.map(\.0)
                writer.key(name.string)
                writer.value([
                    "order": .integer(Int64(order)),
                    "results": .array(results.map { .string($0.event.eventID.string) }),
                ])
            }
            writer.endObject()
        }
        writer.endObject()
    }

    /// Each of the values once, in the order in which they came first.
    private static func inOrder<Value: Hashable>(_ values: [Value]) -> [Value] {
        var seen: Set<Value> = []
        return values.filter { seen.insert($0).inserted }
    }
}
