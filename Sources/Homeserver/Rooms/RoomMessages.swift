import Database
import MatrixCore

extension RoomReading {
    /// What part of a room's history is wanted (`GET /rooms/{roomId}/messages`).
    public struct MessagesRequest: Sendable {
        public var from: String?
        public var to: String?
        public var backwards: Bool
        public var limit: Int
        public var filter: RoomEventFilter

        public init(from: String?, to: String?, backwards: Bool, limit: Int, filter: RoomEventFilter) {
            self.from = from
            self.to = to
            self.backwards = backwards
            self.limit = limit
            self.filter = filter
        }
    }

    /// Events of a page at most, whatever the client asks for.
    static let largestPage = 1_000
    /// Events that are looked at for one page at most: pages of what the requester may not see, or has filtered out, end
    /// with a token to go on from and never with the end of the history.
    static let mostExamined = 2_000

    /// A page of a room's history, as the encoded answer.
    public func messages(
        in roomID: RoomID, _ request: MessagesRequest, for requester: Requester
    ) async throws -> [UInt8] {
        let (room, access) = try await rooms.readable(roomID, by: requester)
        let start = try await start(of: request, in: room, access)
        let end = try await request.to.asyncMap { try await place($0, in: room, backwards: request.backwards) }
        if request.backwards, access.isMember { try await fillGaps(in: room, from: start, limit: request.limit) }
        return try await database.read { reader in
            var visibility = try await EventVisibility(
                self.context, room: room, user: requester.userID, nid: requester.nid, access: access, reader: reader)
            let selection = try await self.select(
                request, in: room, from: start, to: end, &visibility, reader)
            let state =
                request.filter.lazyLoadsMembers
                ? try await self.senders(of: selection.events, room, access, reader) : []
            return try await self.encode(selection, state, from: start, room, requester, &visibility, reader)
        }
    }

    /// Where a page begins. For who has left, the newest that is seen is what was there then, however much was said since.
    private func start(
        of request: MessagesRequest, in room: Room, _ access: RoomAccess
    ) async throws -> Database.OrderedPlace {
        if request.from == nil, request.backwards, let leftAt = access.leftAt,
            let place = try await database.read({ try await self.database.place(upTo: leftAt, in: room.nid, $0) })
        {
            return place
        }
        return try await place(request.from, in: room, backwards: request.backwards)
    }

    /// Gaps that are tried for one page.
    private static let mostTried = 4

    /// Fetches what a page of history lacks from servers that have it. What nobody has stays a gap, and keeps no other one from
    /// being filled.
    private func fillGaps(in room: Room, from start: Database.OrderedPlace, limit: Int) async throws {
        guard try await database.hasGaps(in: room.nid) else { return }
        let most = min(max(limit, 10), Self.largestPage)
        for _ in 0..<Self.mostTried {
            let gap = try await database.read { reader -> Gap? in
                let numbers = try await self.database.timeline(
                    of: room.nid, from: start, backwards: true, limit: most, reader)
                return try await self.database.gaps(
                    before: try await self.database.events(numbers, reader), reader
                ).first { self.missing.mayFill($0) }
            }
            guard let gap else { return }
            _ = try await missing.backfill(gap, in: room, limit: most)
        }
    }

    private struct Selection {
        var events: [StoredEvent] = []
        /// What the requester was in the room, at each of them.
        var memberships: [EventNID: Membership] = [:]
        /// Where the next page begins; nil if there is no more.
        var next: Database.OrderedPlace?
    }

    private func select(
        _ request: MessagesRequest, in room: Room, from start: Database.OrderedPlace, to end: Database.OrderedPlace?,
        _ visibility: inout EventVisibility, _ reader: any Reader
    ) async throws -> Selection {
        let limit = min(max(request.limit, 1), Self.largestPage)
        var selection = Selection()
        // A filter that leaves this room out leaves nothing of it.
        guard request.filter.admits(room.roomID) else { return selection }
        var place = start
        var examined = 0
        while selection.events.count < limit, examined < Self.mostExamined {
            let ask = max(limit - selection.events.count, 10)
            let numbers = try await database.timeline(
                of: room.nid, from: place, backwards: request.backwards, limit: ask, reader)
            for stored in try await database.events(numbers, reader) {
                guard let position = stored.position else { continue }
                let at = Database.OrderedPlace(depth: stored.orderDepth, position: position)
                if let end, request.backwards ? at <= end : at > end {
                    selection.next = nil
                    return selection
                }
                // Backwards, the next page begins before this event; forwards, behind it.
                place = request.backwards ? Database.OrderedPlace(depth: at.depth, position: at.position - 1) : at
                examined += 1
                if try await visibility.allows(stored), try await request.filter.admits(stored, context, room.version) {
                    selection.events.append(stored)
                    selection.memberships[stored.nid] = try await visibility.membership(at: stored)
                }
                if selection.events.count == limit { break }
            }
            if numbers.count < ask, selection.events.count < limit {
                selection.next = nil
                return selection
            }
        }
        selection.next = place
        return selection
    }

    /// The place in a room that a token of a page or of a sync stands for; where the requested direction begins when there is
    /// none.
    func place(_ token: String?, in room: Room, backwards: Bool) async throws -> Database.OrderedPlace {
        guard let token else {
            return backwards
                ? Database.OrderedPlace(depth: .max, position: .max) : Database.OrderedPlace(depth: 0, position: .min)
        }
        if let token = PaginationToken(token) { return token.place }
        guard let upTo = SyncToken.position(of: token) else {
            throw MatrixError.invalidParam("This token is not one that this server gave out.")
        }
        let place = try await database.read { try await self.database.place(upTo: upTo, in: room.nid, $0) }
        return place ?? Database.OrderedPlace(depth: 0, position: .min)
    }

    /// The member events of those who sent the events (lazy-loaded members).
    private func senders(
        of events: [StoredEvent], _ room: Room, _ access: RoomAccess, _ reader: any Reader
    ) async throws -> [StoredEvent] {
        let state = try await visibleState(room, access, reader)
        let users = try await database.users(Array(Set(events.map(\.sender))))
        let keys = try await database.existingNumbers(ofStateKeys: users.values.map { .member($0) })
        let tree = StateTree(rows: database.stateRows, room: room.nid)
        var numbers: [EventNID] = []
        for key in keys.values.sorted() {
            if let nid = try await tree.event(for: key, in: state, reader) { numbers.append(nid) }
        }
        return try await database.events(numbers, reader)
    }

    private func encode(
        _ selection: Selection, _ state: [StoredEvent], from start: Database.OrderedPlace, _ room: Room,
        _ requester: Requester, _ visibility: inout EventVisibility, _ reader: any Reader
    ) async throws -> [UInt8] {
        let client = ClientEvents.Audience(requester, now: context.surroundings.now())
        let page = try await events.page(
            selection.events, for: requester.nid, memberships: selection.memberships, seenBy: &visibility, reader)
        let statePage = try await events.page(state, for: requester.nid, seenBy: &visibility, reader)
        var writer = JSONWriter(capacity: 600 * selection.events.count + 256)
        writer.beginObject()
        writer.key("chunk")
        writer.beginArray()
        for event in page.events {
            try events.write(event, of: page, version: room.version, for: client, into: &writer)
        }
        writer.endArray()
        writer.key("start")
        writer.string(PaginationToken(start).text)
        if let next = selection.next {
            writer.key("end")
            writer.string(PaginationToken(next).text)
        }
        if !statePage.events.isEmpty {
            writer.key("state")
            writer.beginArray()
            for event in statePage.events {
                try events.write(event, of: statePage, version: room.version, for: client, into: &writer)
            }
            writer.endArray()
        }
        writer.endObject()
        return writer.bytes
    }
}
