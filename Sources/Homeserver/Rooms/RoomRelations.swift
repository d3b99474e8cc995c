import Database
import MatrixCore

extension RoomReading {
    /// Which of an event's children are wanted (`GET /rooms/{roomId}/relations/{eventId}…`).
    public struct RelationsRequest: Sendable {
        public var relType: String?
        public var eventType: String?
        public var from: String?
        public var to: String?
        public var backwards: Bool
        public var limit: Int
        /// Whether children of children are wanted, too.
        public var recurses: Bool

        public init(
            relType: String?, eventType: String?, from: String?, to: String?, backwards: Bool, limit: Int,
            recurses: Bool = false
        ) {
            self.recurses = recurses
            self.relType = relType
            self.eventType = eventType
            self.from = from
            self.to = to
            self.backwards = backwards
            self.limit = limit
        }
    }

    /// A page of the events that refer to an event, as the encoded answer.
    ///
    /// - Throws: `M_NOT_FOUND` if the requester may not read the event.
    public func relations(
        of eventID: EventID, in roomID: RoomID, _ request: RelationsRequest, for requester: Requester
    ) async throws -> [UInt8] {
        let (room, access) = try await rooms.readable(roomID, by: requester)
        let none = MatrixError.notFound("There is no such event, or you may not read it.")
        guard let parent = try await database.event(eventID), parent.room == room.nid else { throw none }
        let limit = min(max(request.limit, 1), Self.largestPage)
        let start = try await place(request.from, in: room, backwards: request.backwards)
        let end = try await request.to.asyncMap { try await place($0, in: room, backwards: request.backwards) }
        return try await database.read { reader in
            var visibility = try await EventVisibility(
                self.context, room: room, user: requester.userID, nid: requester.nid, access: access, reader: reader)
            guard try await visibility.allows(parent) else { throw none }
            var found: [StoredEvent] = []
            var place = start
            var next: Database.OrderedPlace?
            var examined = 0
            let tree = request.recurses ? try await self.descendants(of: eventID, in: room.nid, reader) : nil
            search: while true {
                let children: [(event: EventNID, type: String)]
                if let tree {
                    children = Self.page(of: tree, from: place, backwards: request.backwards, limit: 2 * limit)
                } else {
                    children = try await self.database.children(
                        of: eventID, in: room.nid, from: place, backwards: request.backwards, limit: 2 * limit, reader)
                }
                let events = try await self.database.events(children.map(\.event), reader)
                for (child, event) in zip(children, events) {
                    guard let position = event.position else { continue }
                    let at = Database.OrderedPlace(depth: event.orderDepth, position: position)
                    if let end, request.backwards ? at <= end : at > end { break search }
                    if found.count == limit || examined == Self.mostExamined {
                        next = place
                        break search
                    }
                    examined += 1
                    place = request.backwards ? Database.OrderedPlace(depth: at.depth, position: position - 1) : at
                    guard request.relType.map({ $0 == child.type }) ?? true, try await visibility.allows(event),
                        try self.isOfType(event, request.eventType, room)
                    else { continue }
                    found.append(event)
                }
                if children.count < 2 * limit { break }
            }
            return try await self.encode(
                found, previous: request.from, next: next.map { PaginationToken($0).text },
                depth: request.recurses ? Self.mostLevels : nil, room, requester, &visibility, reader)
        }
    }

    /// Levels of children of children, and events in all, that are looked at (Client-Server API, "Querying child
    /// events"; it asks for three levels at least).
    private static let mostLevels = 3
    private static let mostDescendants = 5_000

    private struct Descendant {
        let event: StoredEvent
        let place: Database.OrderedPlace
        let type: String
    }

    /// The children of an event, their children and so on, oldest first. A query for each event that has any.
    private func descendants(
        of root: EventID, in room: RoomNID, _ reader: any Reader
    ) async throws -> [Descendant] {
        var found: [EventNID: Descendant] = [:]
        var level = [root]
        let start = Database.OrderedPlace(depth: .max, position: .max)
        for _ in 0..<Self.mostLevels {
            var next: [EventID] = []
            for parent in level {
                let left = Self.mostDescendants - found.count
                if left <= 0 { break }
                let children = try await database.children(
                    of: parent, in: room, from: start, backwards: true, limit: left, reader)
                for (event, child) in zip(try await database.events(children.map(\.event), reader), children) {
                    guard found[event.nid] == nil, let position = event.position else { continue }
                    found[event.nid] = Descendant(
                        event: event, place: Database.OrderedPlace(depth: event.orderDepth, position: position),
                        type: child.type)
                    if event.flags.contains(.hasRelations) { next.append(event.eventID) }
                }
            }
            level = next
        }
        return found.values.sorted { $0.place < $1.place }
    }

    private static func page(
        of tree: [Descendant], from place: Database.OrderedPlace, backwards: Bool, limit: Int
    ) -> [(event: EventNID, type: String)] {
        let chosen =
            backwards
            ? Array(tree.reversed().drop { $0.place > place }.prefix(limit))
            : Array(tree.drop { $0.place <= place }.prefix(limit))
        return chosen.map { ($0.event.nid, $0.type) }
    }

    private func isOfType(_ event: StoredEvent, _ type: String?, _ room: Room) throws -> Bool {
        guard let type else { return true }
        return try context.parse(event, room.version).type == type
    }

    private func encode(
        _ events: [StoredEvent], previous: String?, next: String?, depth: Int? = nil, _ room: Room,
        _ requester: Requester, _ visibility: inout EventVisibility, _ reader: any Reader
    ) async throws -> [UInt8] {
        let audience = ClientEvents.Audience(requester, now: context.surroundings.now())
        var memberships: [EventNID: Membership] = [:]
        for event in events { memberships[event.nid] = try await visibility.membership(at: event) }
        let page = try await self.events.page(
            events, for: requester.nid, memberships: memberships, seenBy: &visibility, reader)
        var writer = JSONWriter(capacity: 600 * events.count + 64)
        writer.beginObject()
        writer.key("chunk")
        writer.beginArray()
        for event in page.events {
            try self.events.write(event, of: page, version: room.version, for: audience, into: &writer)
        }
        writer.endArray()
        if let depth {
            writer.key("recursion_depth")
            writer.integer(depth)
        }
        if let previous {
            writer.key("prev_batch")
            writer.string(previous)
        }
        if let next {
            writer.key("next_batch")
            writer.string(next)
        }
        writer.endObject()
        return writer.bytes
    }

    /// A page of a room's threads, that with the newest event first, as the encoded answer (`GET /rooms/{roomId}/threads`).
    ///
    /// - Parameter onlyOwn: only threads that the requester takes part in.
    public func threads(
        in roomID: RoomID, onlyOwn: Bool, from: String?, limit: Int, for requester: Requester
    ) async throws -> [UInt8] {
        let (room, access) = try await rooms.readable(roomID, by: requester)
        var depth = try await place(from, in: room, backwards: true).depth
        let limit = min(max(limit, 1), Self.largestPage)
        let start = depth
        return try await database.read { reader in
            var visibility = try await EventVisibility(
                self.context, room: room, user: requester.userID, nid: requester.nid, access: access, reader: reader)
            var found: [StoredEvent] = []
            var isEnd = false
            var examined = 0
            while found.count < limit, !isEnd, examined < Self.mostExamined {
                let roots = try await self.database.threads(in: room.nid, before: depth, limit: limit, reader)
                isEnd = roots.count < limit
                for (root, event) in zip(roots, try await self.database.events(roots.map(\.root), reader)) {
                    if found.count == limit {
                        isEnd = false
                        break
                    }
                    depth = root.latest
                    examined += 1
                    guard try await visibility.allows(event) else { continue }
                    let summary = try await self.events.summary(
                        of: event, for: requester.nid, &visibility, reader)
                    // A thread of which the requester may see nothing isn't one to them.
                    guard summary?.thread != nil else { continue }
                    if onlyOwn, summary?.thread?.participated != true { continue }
                    found.append(event)
                }
            }
            let next = isEnd ? nil : PaginationToken(Database.OrderedPlace(depth: depth, position: 0)).text
            return try await self.encode(
                found, previous: from == nil || start == depth ? nil : from, next: next, room, requester, &visibility,
                reader)
        }
    }
}
