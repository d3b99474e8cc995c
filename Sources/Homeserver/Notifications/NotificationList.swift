import Database
import MatrixCore

/// What a user has been notified of (Client-Server API, "Listing Notifications").
public final class NotificationList: Sendable {
    private let rooms: RoomRegistry
    private let unread: UnreadCounts
    private let pushRules: PushRuleService
    private let events: ClientEvents
    private let activity: Activity
    private var database: Database { rooms.database }

    init(rooms: RoomRegistry, unread: UnreadCounts, pushRules: PushRuleService, activity: Activity) {
        self.activity = activity
        self.rooms = rooms
        self.unread = unread
        self.pushRules = pushRules
        events = ClientEvents(context: rooms.context)
    }

    private static let largestPage = 100

    private struct Found: Sendable {
        let room: RoomNID
        let event: EventNID
        let position: Int64
        /// The root of the thread that it is in; 0 for the main timeline.
        let thread: EventNID
    }

    /// A page of the list, newest first.
    ///
    /// - Parameter from: the token of the page before.
    public func page(
        from: String?, limit: Int?, onlyHighlights: Bool, for requester: Requester
    ) async throws -> JSON {
        var before = Int64.max
        if let from {
            guard from.utf8.first == UInt8(ascii: "n"), let position = Int64(from.dropFirst()) else {
                throw MatrixError.invalidParam("“from” is not a token that this server gave out.")
            }
            before = position
        }
        let limit = min(max(limit ?? 20, 1), Self.largestPage)
        return try await database.read { reader in
            let memberships = try await self.database.memberships(of: requester.nid, reader).filter {
                $0.membership == .join || $0.membership == .invite
            }
            // The rooms in which something happened last come first: those behind them have nothing newer than that.
            let changes = self.activity.lastChanges(of: memberships.map(\.room))
            func change(_ membership: RoomMembership) -> Int64 {
                max(changes[membership.room] ?? .max, membership.position)
            }
            var rest = memberships.sorted { change($0) > change($1) }[...]
            // Oldest first, so that the newest is at hand.
            var found: [Found] = []
            var notifications: [JSON] = []
            var next: Int64?
            while true {
                var newest = found.last?.position
                let count = found.count
                while let room = rest.first, newest.map({ $0 <= change(room) }) ?? true {
                    rest.removeFirst()
                    // Newest first.
                    let more = try await self.candidates(room, before, limit, onlyHighlights, requester, reader)
                    found += more
                    if let first = more.first { newest = max(first.position, newest ?? first.position) }
                }
                if found.count > count { found.sort { $0.position < $1.position } }
                guard let candidate = found.popLast() else { break }
                if notifications.count == limit {
                    next = candidate.position + 1
                    break
                }
                guard let membership = memberships.first(where: { $0.room == candidate.room }),
                    let entry = try await self.entry(candidate, membership, onlyHighlights, requester, reader)
                else { continue }
                notifications.append(entry)
            }
            var answer: JSONObject = ["notifications": .array(notifications)]
            if let next { answer["next_token"] = .string("n\(next)") }
            return .object(answer)
        }
    }

    /// Events of one room that may have notified the user. Two ranges of two indices.
    private func candidates(
        _ membership: RoomMembership, _ before: Int64, _ limit: Int, _ onlyHighlights: Bool, _ requester: Requester,
        _ reader: any Reader
    ) async throws -> [Found] {
        let start = Database.OrderedPlace(depth: -1, position: .min)
        let room = try await rooms.room(membership.room)
        let rows = try await database.notifications(
            of: requester.nid, in: room.nid, after: start, limit: UnreadCounts.most, reader)
        var found: [EventNID: Found] = [:]
        let exceptions = Dictionary(rows.map { ($0.event, $0.outcome) }) { first, _ in first }
        for row in rows where row.outcome.contains(onlyHighlights ? .highlights : .notifies) {
            found[row.event] = Found(
                room: room.nid, event: row.event, position: row.place.position, thread: row.thread)
        }
        let isMuted = try await pushRules.compiled(for: requester.userID, requester.nid).mutes(room.roomID)
        if membership.membership == .join, !isMuted {
            let ignored = try await rooms.context.ignored.list(of: requester.nid)
            for event in try await database.notifyingEvents(
                in: room.nid, after: start, limit: UnreadCounts.most, reader)
            where event.sender != requester.nid && exceptions[event.event] == nil
                && (!onlyHighlights || event.mark.highlights) && !ignored.contains(event.sender)
            {
                found[event.event] = Found(
                    room: room.nid, event: event.event, position: event.place.position, thread: event.mark.thread)
            }
        }
        return found.values.filter { $0.position < before }.sorted { $0.position > $1.position }.prefix(limit + 1).map {
            $0
        }
    }

    private func entry(
        _ found: Found, _ membership: RoomMembership, _ onlyHighlights: Bool, _ requester: Requester,
        _ reader: any Reader
    ) async throws -> JSON? {
        guard let stored = try await database.events([found.event], reader).first, stored.redactedBy == nil else {
            return nil
        }
        let room = try await rooms.room(found.room)
        let page: ClientEvents.Page
        let isOwnInvitation = stored.nid == membership.event && membership.membership == .invite
        if isOwnInvitation {
            page = try await events.page([stored], for: requester.nid, reader)
        } else {
            guard membership.membership == .join else { return nil }
            var visibility = try await EventVisibility(
                rooms.context, room: room, user: requester.userID, nid: requester.nid,
                access: RoomAccess(leftAt: nil, membership: .join), reader: reader)
            guard try await visibility.allows(stored) else { return nil }
            page = try await events.page([stored], for: requester.nid, seenBy: &visibility, reader)
        }
        let event = try rooms.context.parse(stored, room.version)
        let rules = try await pushRules.compiled(for: requester.userID, requester.nid)
        var context = PushContext(
            memberCount: try await database.joinedMembers(of: room.nid, reader), displayName: nil,
            powerLevels: PowerLevels(event: nil, create: event))
        if pushRules.followsThreads, found.thread != EventNID(0) {
            context.isSubscribedToThread =
                try await database.threadSubscription(
                    of: requester.nid, to: found.thread, in: room.nid, reader)?.isSubscribed ?? false
        }
        let actions = rules.actions(
            for: event, user: requester.userID, in: context, otherwise: pushRules.defaults(for: requester.userID))
        var writer = JSONWriter()
        let now = rooms.context.surroundings.now()
        try events.write(
            stored, of: page, version: room.version, for: ClientEvents.Audience(requester, now: now), into: &writer)
        let isRead: Bool
        if isOwnInvitation {
            isRead = false
        } else {
            isRead = try await !unread.isUnread(stored, in: room, by: requester, membership, reader)
        }
        return [
            "actions": .array(actions.json.isEmpty ? ["notify"] : actions.json),
            "event": try JSONDocument(parsing: writer.bytes, limits: .own).root.json, "read": .bool(isRead),
            "room_id": .string(room.roomID.string), "ts": .integer(stored.originServerTS),
        ]
    }
}
