import Database
import Logging
import MatrixCore

/// Sliding sync (MSC4186): what has happened in the rooms that a client asks for, in the order of their activity.
///
/// What an account has in thousands of rooms is sorted and filtered in memory; of the database is asked what the windows show. A
/// connection remembers what it has told of which room, in the database; see ``SlidingConnections``.
public final class SlidingSyncService: Sendable {
    let sync: SyncService
    let facts: RoomFactsCache
    let orders: RoomOrders
    let marks: RoomMarks
    let state: RoomStateSelection
    let connections: SlidingConnections
    let lazyMembers = LazyMembers()

    var rooms: RoomRegistry { sync.rooms }
    var database: Database { sync.database }
    var context: RoomContext { sync.context }
    var unread: UnreadCounts { sync.unread }
    var typing: Typing { sync.typing }
    var activity: Activity { sync.activity }
    var devices: DeviceSync { sync.devices }
    var events: ClientEvents { sync.events }
    var run: String { sync.run }
    var logger: Logger { sync.logger }

    init(sync: SyncService) {
        self.sync = sync
        facts = RoomFactsCache(rooms: sync.rooms, activity: sync.activity)
        orders = RoomOrders(facts: facts, activity: sync.activity)
        marks = RoomMarks(database: sync.database, activity: sync.activity)
        state = RoomStateSelection(database: sync.database)
        connections = SlidingConnections(database: sync.database, surroundings: sync.context.surroundings)
    }

    /// How often an answer is built anew because another request on the connection was faster.
    private static let attempts = 5

    /// Answers at once if there is something to tell, and otherwise when there is or when the time is up.
    ///
    /// - Returns: the encoded answer.
    /// - Throws: `M_UNKNOWN_POS` if the position is not one of the device's, or has expired.
    public func sync(_ request: SlidingRequest, for requester: Requester) async throws -> [UInt8] {
        try await poll(request, for: requester).finished()
    }

    /// The same; the caller waits, if there is nothing to tell yet.
    public func poll(_ request: SlidingRequest, for requester: Requester) async throws -> LongPoll {
        let since = try await token(request.pos)
        try await sync.presence.synced(request.presence, by: requester)
        if let text = request.extensions.toDevice?.since,
            let position = SyncToken.toDevicePosition(text, epoch: sync.epoch), try await database.reach(position)
        {
            try await devices.acknowledge(position, by: requester)
        }
        let search = Search(
            request: request, requester: requester, since: since,
            deadline: context.surroundings.now() + min(request.timeout, SyncService.longestWait),
            connection: try await connection(since, requester))
        if since != nil { return try await look(search) }
        return try await sync.heavyWork.run(for: requester.nid) { try await self.look(search) }
    }

    /// What is looked for, and what the client has been told.
    private struct Search: Sendable {
        let request: SlidingRequest
        let requester: Requester
        let since: SlidingToken?
        let deadline: Int64
        var connection: SlidingConnection
        var attemptsLeft = SlidingSyncService.attempts
    }

    private func connection(_ since: SlidingToken?, _ requester: Requester) async throws -> SlidingConnection {
        if let since { return try await connections.connection(since, of: requester) }
        return SlidingConnection(stored: nil, confirmsPending: false, rooms: [:], configs: SlidingConfigs())
    }

    private func look(_ search: Search) async throws -> LongPoll {
        var search = search
        while search.attemptsLeft > 0 {
            do {
                return try await answer(search)
            } catch DatabaseError.conflict, DatabaseError.constraint {
                search.attemptsLeft -= 1
                search.connection = try await connection(search.since, search.requester)
            }
        }
        throw SlidingConnections.unknown
    }

    /// A token that another node gave out may be ahead of this one, which then catches up first.
    private func token(_ text: String?) async throws -> SlidingToken? {
        guard let text else { return nil }
        guard let token = SlidingToken(text), token.place.epoch == sync.epoch,
            try await database.reach(token.place.position)
        else { throw SlidingConnections.unknown }
        return token
    }

    private func answer(_ wanted: Search) async throws -> LongPoll {
        var search = wanted
        let request = search.request
        let requester = search.requester
        while true {
            let known = try await sync.memberships(of: requester.nid)
            // Registered before anything is read: what happens from here on wakes it. A connection that begins is answered at once.
            let waiter = search.since.map { _ in sync.notifier.register(requester.nid, rooms: known.joined) }
            var isWaiting = false
            defer { if let waiter, !isWaiting { sync.notifier.remove(waiter) } }
            let upTo = sync.present(after: search.since?.place)
            guard sync.isCurrent(known, of: requester.nid) else { continue }
            let lists = SlidingLists(service: self, requester: requester, connection: search.connection)
            let (counts, shown) = try await lists.match(request, known)
            let candidates = try await candidates(shown, request, &search.connection, requester)
            let facts = try await facts.facts(of: candidates.map(\.room.nid), for: requester.nid)
            let builder = SlidingBuilder(
                service: self, requester: requester, request: request, since: search.since, upTo: upTo,
                connection: search.connection, now: context.surroundings.now(), lists: lists, facts: facts,
                shownRooms: Dictionary(shown.map { ($0.membership.room, $0) }) { $1 },
                lastChanges: activity.lastChanges(of: candidates.map(\.room.nid)))
            let answer = try await builder.build(candidates, known.list)
            search.connection.quiet.merge(answer.quiet) { $1 }
            let left = search.deadline - context.surroundings.now()
            guard let waiter, answer.isEmpty, left > 0, !sync.notifier.isDraining else {
                return .answered(try await finish(answer, counts, builder, search.connection))
            }
            isWaiting = true
            return sync.wait(waiter, atMost: left, as: request.presence, requester) { [search] in
                try await self.look(search)
            }
        }
    }

    /// Remembers what is told, and encodes it.
    private func finish(
        _ answer: SlidingBuilder.Answer, _ counts: [(name: String, count: Int)], _ builder: SlidingBuilder,
        _ connection: SlidingConnection
    ) async throws -> [UInt8] {
        var place = (connection: builder.since?.connection ?? 0, generation: builder.since?.generation ?? 0)
        if !answer.news.isEmpty || connections.isDue(connection) {
            place = try await connections.move(
                connection, named: builder.request.connID, telling: answer.news, by: builder.requester)
        } else {
            connections.note(connection.quiet, of: connection)
        }
        var upTo = builder.upTo
        upTo.sticky = answer.extensions.stickyRest
        return builder.encode(
            answer, counts: counts,
            position: SlidingToken(
                connection: place.connection, generation: place.generation, place: upTo,
                extensions: builder.request.extensions.covered,
                profileFields: builder.request.extensions.profiles?.digest ?? 0))
    }

    /// The rooms of which there may be something to tell.
    private func candidates(
        _ shown: [SlidingLists.Shown], _ request: SlidingRequest, _ connection: inout SlidingConnection,
        _ requester: Requester
    ) async throws -> [SlidingBuilder.Candidate] {
        if shown.isEmpty { return [] }
        let direct = try await marks.directRooms(of: requester.nid)
        // The position up to which nothing of a room is news to the client.
        let changed = activity.changed(
            shown.map { one in
                let room = one.membership.room
                return (room, max(connection.rooms[room]?.position ?? 0, connection.quiet[room]?.upTo ?? 0))
            })
        var candidates: [SlidingBuilder.Candidate] = []
        for one in shown {
            let number = one.membership.room
            let config = connection.configs.number(of: one.config.required)
            let isDirect = direct.contains(number)
            if let sent = connection.rooms[number] {
                let isJoined = one.membership.membership == .join
                let quiet = connection.quiet[number]
                let mayExpand =
                    isJoined && (sent.config != config || Int64(one.config.timelineLimit) > sent.told)
                    && (quiet?.config != config || (quiet?.limit ?? 0) < one.config.timelineLimit)
                let mayHaveNews = isJoined ? changed.contains(number) : one.membership.position > sent.position
                let isOther = isJoined && sent.flags.contains(.direct) != isDirect
                let lacksReceipts =
                    isJoined && request.extensions.receipts != nil && !sent.flags.contains(.receipts)
                guard mayExpand || mayHaveNews || isOther || lacksReceipts else { continue }
            }
            let room = try await rooms.room(number)
            candidates.append(
                .init(
                    shown: one, room: room, configNumber: config, isDirect: isDirect,
                    wantsReceipts: request.extensions.receipts?.admits(
                        room.roomID, in: one.lists, isSubscribed: one.isSubscribed) ?? false))
        }
        return candidates
    }
}

extension SlidingRequest.Extensions {
    /// Those that an answer tells up to its position.
    var covered: SlidingToken.Extensions {
        var covered: SlidingToken.Extensions = []
        if accountData != nil { covered.insert(.accountData) }
        if typing != nil { covered.insert(.typing) }
        if isEncryptionEnabled { covered.insert(.encryption) }
        if profiles != nil { covered.insert(.profiles) }
        if areStickyEventsEnabled { covered.insert(.stickyEvents) }
        if threadSubscriptions != nil { covered.insert(.threadSubscriptions) }
        return covered
    }
}
