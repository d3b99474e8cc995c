import Database
import MatrixCore
import Synchronization

/// How many events somebody hasn't seen (Client-Server API, "Receiving notifications").
struct UnreadCount: Sendable, Hashable {
    var notifications = 0
    var highlights = 0

    static func += (left: inout UnreadCount, right: UnreadCount) {
        left.notifications += right.notifications
        left.highlights += right.highlights
    }
}

/// Counts what members haven't read.
///
/// Nothing is stored for a reader: an event is marked when it notifies by the rules that everybody starts with, and
/// counting goes through the marked events behind the receipt. The newest of them are kept in memory for each
/// room, for all its readers together, so that delivering a message to a thousand of them asks the database once.
final class UnreadCounts: Sendable {
    /// Events counted at most: more than that nobody shows.
    static let most = 1_000

    /// The newest marked events of a room, oldest first, all there are up to a position.
    fileprivate struct Recent: Sendable {
        var events: [NotifyingEvent]
        /// Where reading goes on.
        var end: Database.OrderedPlace
        var upTo: Int64
        /// Events that have been redacted, perhaps.
        var doubtful: Set<EventNID> = []
    }

    /// Up to where a user has read, and what is noted for them beyond it.
    fileprivate struct Standing: Sendable {
        let memberEvent: EventNID
        let joinedAt: Int64
        let everything: Database.OrderedPlace
        /// By the roots of threads, 0 for the main timeline.
        let threads: [EventNID: Database.OrderedPlace]
        let exceptions: [NotificationRow]
    }

    fileprivate struct Key: Hashable {
        let user: UserNID
        let room: RoomNID
    }

    fileprivate struct Table {
        var rooms = BoundedCache<RoomNID, Recent>(capacity: 8 << 20)
        var standings = BoundedCache<Key, Standing>(capacity: 200_000)
        /// When each standing changed last, counted in changes: what was read before isn't kept after.
        var changes = BoundedCache<Key, Int>(capacity: 50_000)
        var serial = 0
        var forgottenAt = 0
    }

    private let database: Database
    private let pushRules: PushRuleService
    private let context: RoomContext
    /// The lock protects the tables; nothing is awaited while it is held.
    private let table = Mutex(Table())
    private let looks = SingleFlight<RoomNID>()

    init(context: RoomContext, pushRules: PushRuleService) {
        self.context = context
        database = context.database
        self.pushRules = pushRules
    }

    func note(_ topics: [Topic]) {
        table.withLock { table in
            for topic in topics {
                switch topic {
                case .roomOf(let room, let user):
                    let reader = Key(user: user, room: room)
                    table.standings.remove(reader)
                    table.serial += 1
                    table.changes.insert(table.serial, for: reader, size: 1)
                case .everything:
                    table.rooms.removeAll()
                    table.standings.removeAll()
                    table.serial += 1
                    table.forgottenAt = table.serial
                default: break
                }
            }
            let events = topics.compactMap { topic -> EventNID? in
                if case .event(let event) = topic { event } else { nil }
            }
            if events.isEmpty { return }
            for case .room(let room) in topics {
                guard var recent = table.rooms[room] else { continue }
                recent.doubtful.formUnion(events)
                table.put(recent, room)
            }
        }
    }

    /// What a member hasn't read, by the roots of threads; 0 is the main timeline. Threads without anything unread are left out.
    ///
    /// - Parameter upTo: the position up to which events count.
    func counts(
        for user: UserID, _ nid: UserNID, in room: Room, membership: RoomMembership, upTo: Int64, _ reader: any Reader
    ) async throws -> [EventNID: UnreadCount] {
        let recent = try await recent(room.nid, upTo)
        let standing = try await standing(nid, room, membership, reader)
        let rules = try await pushRules.compiled(for: user, nid)
        let ignored = try await context.ignored.list(of: nid)
        let isMuted = rules.mutes(room.roomID)
        var counts: [EventNID: UnreadCount] = [:]
        // Whoever writes has read what was before, of that thread.
        var own: [EventNID: Database.OrderedPlace] = [:]
        for row in standing.exceptions where row.outcome.contains(.isOwn) && row.place.position <= upTo {
            own[row.thread] = max(own[row.thread] ?? row.place, row.place)
        }
        let exceptions = Dictionary(standing.exceptions.map { ($0.event, $0.outcome) }) { first, _ in first }
        func isUnread(_ place: Database.OrderedPlace, _ thread: EventNID) -> Bool {
            place.position <= upTo && place > standing.everything && place.position > standing.joinedAt
                && (standing.threads[thread].map { place > $0 } ?? true) && (own[thread].map { place > $0 } ?? true)
        }
        for event in recent.reversed() where event.place.position <= upTo {
            if event.place <= standing.everything || event.place.position <= standing.joinedAt { break }
            let thread = event.mark.thread
            if event.sender == nid {
                own[thread] = max(own[thread] ?? event.place, event.place)
                continue
            }
            guard isUnread(event.place, thread), exceptions[event.event] == nil, !isMuted,
                !ignored.contains(event.sender)
            else { continue }
            counts[thread, default: UnreadCount()] += UnreadCount(
                notifications: 1, highlights: event.mark.highlights ? 1 : 0)
        }
        for row in standing.exceptions where row.outcome.contains(.notifies) && isUnread(row.place, row.thread) {
            // What was redacted since isn't news any more.
            guard let stored = try await database.events([row.event], reader).first, stored.redactedBy == nil,
                !ignored.contains(stored.sender)
            else {
                continue
            }
            counts[row.thread, default: UnreadCount()] += UnreadCount(
                notifications: 1, highlights: row.outcome.contains(.highlights) ? 1 : 0)
        }
        return counts
    }

    /// Whether a member hasn't read an event.
    func isUnread(
        _ event: StoredEvent, in room: Room, by requester: Requester, _ membership: RoomMembership,
        _ reader: any Reader
    ) async throws -> Bool {
        guard let position = event.position else { return false }
        let standing = try await standing(requester.nid, room, membership, reader)
        let place = Database.OrderedPlace(depth: event.orderDepth, position: position)
        let recent = try await recent(room.nid, position)
        let exceptions = standing.exceptions
        let thread =
            event.notifying?.thread ?? exceptions.first { $0.event == event.nid }?.thread ?? EventNID(0)
        let marked = recent.last { $0.sender == requester.nid && $0.mark.thread == thread }?.place
        let noted = exceptions.first { $0.outcome.contains(.isOwn) && $0.thread == thread }?.place
        let own = [marked, noted].compactMap { $0 }.max()
        return place > standing.everything && position > standing.joinedAt
            && (standing.threads[thread].map { place > $0 } ?? true) && (own.map { place > $0 } ?? true)
    }

    // MARK: - The room

    /// The newest marked events of a room, oldest first. Reads what has come since it was asked last.
    private func recent(_ room: RoomNID, _ upTo: Int64) async throws -> [NotifyingEvent] {
        try await looks.value(room) {
            let known = table.withLock { $0.rooms[room] }
            return known.flatMap { $0.upTo >= upTo && $0.doubtful.isEmpty ? $0.events : nil }
        } find: {
            try await database.read { try await self.readRecent(room, upTo, $0) }
        }
    }

    private func readRecent(_ room: RoomNID, _ upTo: Int64, _ reader: any Reader) async throws -> [NotifyingEvent] {
        let known = table.withLock { $0.rooms[room] }
        let start = Database.OrderedPlace(depth: -1, position: .min)
        var events = known?.events ?? []
        if let known, !known.doubtful.isEmpty {
            let asked = events.map(\.event).filter { known.doubtful.contains($0) }
            let unmarked = Set(try await database.events(asked, reader).filter { $0.redactedBy != nil }.map(\.nid))
            events.removeAll { unmarked.contains($0.event) }
        }
        // The end is read first: what comes meanwhile is read the next time.
        let end = try await database.end(of: room, reader) ?? start
        if known == nil || known!.end < end {
            events += try await database.notifyingEvents(
                in: room, after: known?.end ?? start, limit: Self.most, reader
            ).reversed().filter { $0.place <= end }
        }
        if events.count > Self.most { events.removeFirst(events.count - Self.most) }
        let recent = Recent(events: events, end: end, upTo: upTo)
        table.withLock { table in
            // Doubts that arose meanwhile stay.
            var recent = recent
            if let now = table.rooms[room] { recent.doubtful = now.doubtful.subtracting(known?.doubtful ?? []) }
            table.put(recent, room)
        }
        return events
    }

    // MARK: - The reader

    private func standing(
        _ user: UserNID, _ room: Room, _ membership: RoomMembership, _ reader: any Reader
    ) async throws -> Standing {
        let key = Key(user: user, room: room.nid)
        let (known, serial): (Standing?, Int) = table.withLock { table in
            (table.standings[key].flatMap { $0.memberEvent == membership.event ? $0 : nil }, table.serial)
        }
        if let known { return known }
        let read = try await readStanding(user, room, membership, reader)
        table.withLock { table in
            if table.forgottenAt > serial || table.changes[key] ?? 0 > serial { return }
            table.standings.insert(read, for: key, size: 1 + read.exceptions.count + read.threads.count)
        }
        return read
    }

    private func readStanding(
        _ user: UserNID, _ room: Room, _ membership: RoomMembership, _ reader: any Reader
    ) async throws -> Standing {
        var everything = Database.OrderedPlace(depth: -1, position: .min)
        var threads: [EventNID: Database.OrderedPlace] = [:]
        for receipt in try await database.receipts(in: room.nid, of: user, reader) {
            guard let event = try await database.event(EventID(unchecked: receipt.eventID)), event.room == room.nid,
                let position = event.position
            else { continue }
            let place = Database.OrderedPlace(depth: event.orderDepth, position: position)
            switch receipt.thread {
            case "": everything = max(everything, place)
            case "main": threads[EventNID(0)] = max(threads[EventNID(0)] ?? place, place)
            default:
                guard let root = try await database.event(EventID(unchecked: receipt.thread)) else { continue }
                threads[root.nid] = max(threads[root.nid] ?? place, place)
            }
        }
        return Standing(
            memberEvent: membership.event, joinedAt: try await joining(membership, room, reader),
            everything: everything, threads: threads,
            exceptions: try await database.notifications(
                of: user, in: room.nid, after: everything, limit: Self.most, reader))
    }

    /// Member events looked at to find the one by which the user joined; the others changed a name or a picture.
    private static let mostChanges = 20

    private func joining(_ membership: RoomMembership, _ room: Room, _ reader: any Reader) async throws -> Int64 {
        var position = membership.position
        var number: EventNID? = membership.event
        for _ in 0..<Self.mostChanges {
            guard let nid = number, let event = try await database.events([nid], reader).first,
                Membership(try context.parse(event, room.version).content["membership"]) == .join
            else { break }
            position = event.position ?? position
            number = event.replaces
        }
        return position
    }
}

extension UnreadCounts.Table {
    fileprivate mutating func put(_ recent: UnreadCounts.Recent, _ room: RoomNID) {
        rooms.insert(recent, for: room, size: 200 + recent.events.count * MemoryLayout<NotifyingEvent>.stride)
    }
}
