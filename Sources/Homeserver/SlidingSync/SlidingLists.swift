import Database
import MatrixCore

/// The rooms of a user in the order of their activity, and which of them the lists of a request show (MSC4186, "Lists").
struct SlidingLists {
    /// A room that a rule of the request matches.
    struct Shown {
        let membership: RoomMembership
        /// The names of the lists that show it.
        var lists: [String] = []
        var isSubscribed = false
        fileprivate var rules: [Int] = []
        var config: SlidingRequest.RoomConfig
    }

    let service: SlidingSyncService
    let requester: Requester
    let connection: SlidingConnection

    private var database: Database { service.database }

    /// How many rooms each list has, and the rooms that are shown: those of lists in their order, then others that are
    /// subscribed to.
    func match(
        _ request: SlidingRequest, _ known: SyncService.KnownMemberships
    ) async throws -> (counts: [(name: String, count: Int)], shown: [Shown]) {
        let memberships = known.list
        var counts: [(String, Int)] = []
        var shown: [Shown] = []
        var places: [RoomNID: Int] = [:]
        func add(_ membership: RoomMembership, rule: Int, _ change: (inout Shown) -> Void) {
            let place: Int
            if let known = places[membership.room] {
                place = known
            } else {
                place = shown.count
                places[membership.room] = place
                shown.append(Shown(membership: membership, config: .init(timelineLimit: 0, required: .init(rules: []))))
            }
            shown[place].rules.append(rule)
            change(&shown[place])
        }
        if !request.lists.isEmpty {
            let ordered = try await ordered(known)
            for (rule, list) in request.lists.enumerated() {
                let rooms = try await filter(ordered, by: list.filter, memberships)
                counts.append((list.name, rooms.count))
                for range in list.ranges ?? [0...Int.max - 1] where range.lowerBound < rooms.count {
                    for index in range.lowerBound...min(range.upperBound, rooms.count - 1) {
                        add(rooms[index], rule: rule) { room in
                            if room.lists.last != list.name { room.lists.append(list.name) }
                        }
                    }
                }
            }
        }
        if !request.subscriptions.isEmpty {
            let own = Dictionary(memberships.map { ($0.room, $0) }) { $1 }
            for (index, subscription) in request.subscriptions.enumerated() {
                guard let room = try await service.rooms.room(subscription.room), let membership = own[room.nid],
                    try await mayBeShown(membership)
                else { continue }
                add(membership, rule: request.lists.count + index) { $0.isSubscribed = true }
            }
        }
        var combined: [[Int]: SlidingRequest.RoomConfig] = [:]
        for place in shown.indices {
            let rules = Array(Set(shown[place].rules)).sorted()
            if combined[rules] == nil {
                combined[rules] = .combined(
                    rules.map { rule in
                        rule < request.lists.count
                            ? request.lists[rule].config : request.subscriptions[rule - request.lists.count].config
                    })
            }
            shown[place].config = combined[rules]!
        }
        return (counts, shown)
    }

    // MARK: - Order

    /// The rooms that lists are made of, the most lively first.
    private func ordered(_ known: SyncService.KnownMemberships) async throws -> [RoomMembership] {
        let joined = try await service.orders.joined(known, by: requester.nid)
        let others = try await othersThanJoined(known)
        if others.isEmpty { return joined.map(\.membership) }
        return (joined + others).sorted(by: RoomOrders.Ranked.isBefore).map(\.membership)
    }

    /// The rooms that lists are made of although the user isn't in them.
    private func othersThanJoined(_ known: SyncService.KnownMemberships) async throws -> [RoomOrders.Ranked] {
        if known.list.count == known.joined.count { return [] }
        var others: [RoomOrders.Ranked] = []
        var wanted: WantedInvitations?
        for membership in known.list
        where membership.membership != .join && (!membership.forgotten || isUntold(membership)) {
            switch membership.membership {
            case .join, .knock: break
            case .invite:
                if wanted == nil { wanted = try await WantedInvitations(of: requester.nid, service.context) }
                if let wanted, try await !wanted.contain(membership, database.events) { continue }
            case .leave, .ban:
                // Who has left knows it; whom others have sent away may not.
                let ending = try await ending(of: membership)
                let wasSentAway =
                    ending.contains(.byOther) && !ending.isDisjoint(with: [.wasJoined, .wasInvited])
                guard wasSentAway || connection.rooms[membership.room] != nil else { continue }
            }
            others.append(RoomOrders.Ranked(membership: membership, position: membership.position))
        }
        return others
    }

    /// How a membership ended; read from its events where it was not kept.
    func ending(of membership: RoomMembership) async throws -> MembershipEnding {
        if let ending = membership.ending { return ending }
        guard membership.membership == .leave || membership.membership == .ban,
            let event = try await database.events([membership.event]).first
        else { return [] }
        var ending: MembershipEnding = event.sender == requester.nid ? [] : [.byOther]
        if let replaced = event.replaces, let before = try await database.events([replaced]).first {
            let version = try await service.rooms.room(membership.room).version
            switch Membership(try service.context.parse(before, version).content["membership"]) {
            case .join: ending.insert(.wasJoined)
            case .invite, .knock: ending.insert(.wasInvited)
            default: break
            }
        }
        return ending
    }

    /// Whether the client has been told of the room, and not that the membership is what it is now: that the user has left is
    /// told also if the user has forgotten the room since.
    private func isUntold(_ membership: RoomMembership) -> Bool {
        connection.rooms[membership.room].map { $0.position < membership.position } ?? false
    }

    /// Whether the user has to do with the room at all (MSC4186, "Subscriptions").
    private func mayBeShown(_ membership: RoomMembership) async throws -> Bool {
        if membership.forgotten { return isUntold(membership) }
        switch membership.membership {
        case .join, .knock: return true
        case .invite:
            return try await WantedInvitations(of: requester.nid, service.context).contain(membership, database.events)
        case .leave, .ban:
            return try await !ending(of: membership).isDisjoint(with: [.wasJoined, .wasInvited])
                || connection.rooms[membership.room] != nil
        }
    }

    // MARK: - Filters

    private func filter(
        _ rooms: [RoomMembership], by filter: SlidingRequest.Filter, _ memberships: [RoomMembership]
    ) async throws -> [RoomMembership] {
        var rooms = rooms
        if let isInvited = filter.isInvited { rooms.removeAll { ($0.membership == .invite) != isInvited } }
        if let isDirect = filter.isDirect {
            let direct = try await service.marks.directRooms(of: requester.nid)
            rooms.removeAll { direct.contains($0.room) != isDirect }
        }
        if filter.tags != nil || !filter.notTags.isEmpty {
            let tags = try await service.marks.tags(of: requester.nid)
            let wanted = filter.tags.map { Set($0.map { ByteString($0) }) }
            let unwanted = Set(filter.notTags.map { ByteString($0) })
            rooms.removeAll { room in
                let own = tags[room.room] ?? []
                return !own.isDisjoint(with: unwanted) || wanted.map { own.isDisjoint(with: $0) } ?? false
            }
        }
        if let spaces = filter.spaces {
            let children = try await children(of: spaces, memberships)
            rooms.removeAll { !children.contains($0.room) }
        }
        if filter.types != nil || !filter.notTypes.isEmpty {
            let facts = try await service.facts.facts(of: rooms.map(\.room), for: requester.nid)
            let wanted = filter.types.map { Set($0.map { $0.map { ByteString($0) } }) }
            let unwanted = Set(filter.notTypes.map { $0.map { ByteString($0) } })
            rooms.removeAll { room in
                let type = facts[room.room]?.type.map { ByteString($0) }
                return unwanted.contains(type) || wanted.map { !$0.contains(type) } ?? false
            }
        }
        if let isEncrypted = filter.isEncrypted {
            let facts = try await service.facts.facts(of: rooms.map(\.room), for: requester.nid)
            var chosen: [RoomMembership] = []
            for room in rooms {
                let encrypted =
                    room.membership == .join
                    ? facts[room.room]?.isEncrypted ?? false : try await wasEncrypted(room)
                if encrypted == isEncrypted { chosen.append(room) }
            }
            rooms = chosen
        }
        return rooms
    }

    /// Whether a room was encrypted when the user's membership became what it is: what came after is not the user's business.
    private func wasEncrypted(_ membership: RoomMembership) async throws -> Bool {
        guard let event = try await database.events([membership.event]).first, let state = event.stateBefore,
            let key = try await database.existingNumber(ofStateKey: .encryption)
        else { return false }
        return try await database.read { reader in
            try await StateTree(rows: self.database.stateRows, room: membership.room)
                .event(for: key, in: state, reader) != nil
        }
    }

    /// The rooms that spaces which the user has joined name as their children.
    private func children(of spaces: [String], _ memberships: [RoomMembership]) async throws -> Set<RoomNID> {
        let joined = Set(memberships.filter { $0.membership == .join }.map(\.room))
        var children: Set<RoomNID> = []
        for roomID in Set(spaces.compactMap { RoomID($0) }) {
            guard let space = try await service.rooms.room(roomID), joined.contains(space.nid) else { continue }
            let found = try await database.read { reader in
                let state = try await service.state.nonMembers(of: space.nid, at: space.record.state, reader)
                let entries = state.filter { $0.key.type == "m.space.child" }
                var names: [RoomID] = []
                for stored in try await self.database.events(Array(entries.values), reader) {
                    let event = try service.context.parse(stored, space.version)
                    // A child without servers is none (Client-Server API, "m.space.child relationship").
                    guard event.content["via"]?.isArray == true, stored.redactedBy == nil else { continue }
                    if let child = event.stateKey.flatMap({ RoomID($0) }) { names.append(child) }
                }
                return try await self.database.existingNumbers(ofRooms: names, reader)
            }
            children.formUnion(found)
        }
        return children
    }
}
