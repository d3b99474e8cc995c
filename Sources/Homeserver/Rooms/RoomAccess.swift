import Database
import MatrixCore

/// Until when a user may read a room.
struct RoomAccess: Sendable {
    /// nil: the user is in the room, and sees what happens.
    let leftAt: Int64?
    let membership: StoredMembership
    /// The user is not in the room, which lets everybody look in.
    var isPeeking = false

    /// Whether the user is in the room now.
    var isMember: Bool { membership == .join }
}

/// Which events a user may read (Client-Server API, "Room History Visibility").
///
/// Looks at the state before each event; events with the same state before them, as messages in a row have, cost one look.
struct EventVisibility {
    let context: RoomContext
    let room: Room
    let user: UserID
    let userNID: UserNID
    let access: RoomAccess
    private let tree: StateTree
    private let reader: any Reader
    private var visibilityKey: StateKeyNID?
    private var memberKey: StateKeyNID?
    private let ignored: Set<UserNID>
    private var verdicts: [StateNID: Standing] = [:]
    private var sees: Bool?

    private struct Standing {
        var visibility: HistoryVisibility
        var membership: Membership
    }

    init(
        _ context: RoomContext, room: Room, user: UserID, nid: UserNID, access: RoomAccess, reader: any Reader
    ) async throws {
        self.context = context
        self.room = room
        self.user = user
        userNID = nid
        self.access = access
        self.reader = reader
        ignored = try await context.ignored.list(of: nid)
        tree = StateTree(rows: context.database.stateRows, room: room.nid)
        let keys = [StateKey.historyVisibility, StateKey.member(user)]
        let numbers = try await context.database.existingNumbers(ofStateKeys: keys)
        visibilityKey = numbers[keys[0]]
        memberKey = numbers[keys[1]]
    }

    /// Whether the user may read the event.
    mutating func allows(_ event: StoredEvent) async throws -> Bool {
        // Of a room that this server isn't in, one's own membership is all that there is.
        if event.flags.isDisjoint(with: .rejected), event.flags.contains(.outlier), let memberKey,
            event.stateKey == memberKey
        {
            return true
        }
        guard let position = event.position, event.flags.isDisjoint(with: .hidden) else { return false }
        if let leftAt = access.leftAt, position > leftAt { return false }
        if event.stateKey == nil, ignored.contains(event.sender) { return false }
        guard let before = event.stateBefore else { return false }
        let standing = try await standing(before)
        if standing.membership == .join { return true }
        // Who is in the room, or was after the event: the leaving has been looked at above.
        let joinedLater = access.membership == .join || access.leftAt != nil
        return HistoryVisibility.allows(
            user, toSee: try context.parse(event, room.version), visibility: standing.visibility,
            membership: standing.membership, joinedLater: joinedLater)
    }

    /// What the user is in the room once an event has happened (`unsigned.membership`).
    mutating func membership(at event: StoredEvent) async throws -> Membership {
        guard let before = event.stateBefore else { return .leave }
        if let memberKey, event.stateKey == memberKey {
            return Membership(try context.parse(event, room.version).content["membership"]) ?? .leave
        }
        return try await standing(before).membership
    }

    /// Whether the user may see what a state event took the place of (`unsigned.prev_content`): whoever was in the room just
    /// before the event knew the room's state.
    mutating func allowsPrevious(of event: StoredEvent, _ replaced: StoredEvent) async throws -> Bool {
        if try await seesAllHistory() { return true }
        if let memberKey, event.stateKey == memberKey { return true }
        if let before = event.stateBefore, try await standing(before).membership == .join { return true }
        return try await allows(replaced)
    }

    /// Whether the user is in a room whose whole history has always been for its members: most rooms are like this, and there
    /// nothing has to be looked up for each event.
    private mutating func seesAllHistory() async throws -> Bool {
        if let known = sees { return known }
        var answer = access.membership == .join
        if answer, let visibilityKey, let nid = try await tree.event(for: visibilityKey, in: room.record.state, reader),
            let stored = try await context.database.events([nid], reader).first
        {
            let visibility = HistoryVisibility(event: try context.parse(stored, room.version))
            answer = stored.replaces == nil && [.shared, .worldReadable].contains(visibility)
        }
        sees = answer
        return answer
    }

    private mutating func standing(_ state: StateNID) async throws -> Standing {
        if let known = verdicts[state] { return known }
        var standing = Standing(
            visibility: HistoryVisibility(event: try await event(visibilityKey, state)), membership: .leave)
        if let event = try await event(memberKey, state) {
            standing.membership = Membership(event.content["membership"]) ?? .leave
        }
        verdicts[state] = standing
        return standing
    }

    private func event(_ key: StateKeyNID?, _ state: StateNID) async throws -> Event? {
        guard let key, let nid = try await tree.event(for: key, in: state, reader),
            let stored = try await context.database.events([nid], reader).first
        else { return nil }
        return try context.parse(stored, room.version)
    }
}

extension RoomContext {
    /// Whether a user was in a room at a position.
    func wasJoined(_ user: UserID, in room: Room, at position: Int64, _ reader: any Reader) async throws -> Bool {
        let state = try await database.state(of: room.nid, at: position, reader)
        guard let number = try await database.existingNumber(ofStateKey: .member(user)),
            let nid = try await StateTree(rows: database.stateRows, room: room.nid).event(
                for: number, in: state, reader),
            let stored = try await database.events([nid], reader).first
        else { return false }
        return Membership(try parse(stored, room.version).content["membership"]) == .join
    }

    /// Changes of a membership that are gone through at most.
    private static let mostChanges = 100

    /// The position at which a user whose membership is `leave` or `ban` now was in the room last; nil if that never was.
    /// Somebody who is sent away and banned later has left at the first.
    func departure(
        _ membership: RoomMembership, _ version: RoomVersion, _ reader: any Reader
    ) async throws -> Int64? {
        guard var event = try await database.events([membership.event], reader).first else { return nil }
        for _ in 0..<Self.mostChanges {
            guard let replaced = event.replaces,
                let before = try await database.events([replaced], reader).first
            else { return nil }
            if Membership(try parse(before, version).content["membership"]) == .join { return event.position }
            event = before
        }
        return nil
    }
}

extension RoomRegistry {
    /// The room and how far the requester may read it.
    ///
    /// - Throws: `M_FORBIDDEN` for those who never were in it, and for rooms that don't exist: both look the same.
    func readable(_ roomID: RoomID, by requester: Requester) async throws -> (Room, RoomAccess) {
        let refused = MatrixError.forbidden("You are not in this room.")
        guard let room = try await room(roomID) else { throw refused }
        let membership = try await membership(of: requester.nid, in: room)
        if let membership, let access = try await access(membership, to: room) { return (room, access) }
        // Everybody may look into a room that shows itself to the world (Client-Server API, "Room Previews").
        guard try await isWorldReadable(room) else { throw refused }
        return (room, RoomAccess(leftAt: nil, membership: membership?.membership ?? .leave, isPeeking: true))
    }

    /// A user's membership of a room as it is now; nil if there never was one. Of members asked for again, where nobody else can have
    /// changed it, it is known.
    func membership(of user: UserNID, in room: Room) async throws -> RoomMembership? {
        guard let solitude = database.engine.solitude else {
            return try await database.membership(of: user, in: room.nid)
        }
        if let known = room.knownMembership(of: user, under: solitude) { return known }
        let stateVersion = room.record.stateVersion
        let membership = try await database.membership(of: user, in: room.nid)
        if let membership { room.note(membership, of: user, asOf: stateVersion, under: solitude) }
        return membership
    }

    /// How far one who is a member, or was, may read; nil for who never was.
    func access(_ membership: RoomMembership, to room: Room) async throws -> RoomAccess? {
        if membership.forgotten { return nil }
        switch membership.membership {
        case .join: return RoomAccess(leftAt: nil, membership: .join)
        case .leave, .ban:
            // Only who was in the room may read it after, and no further than it went.
            let leftAt = try await database.read { reader in
                try await self.context.departure(membership, room.version, reader)
            }
            return leftAt.map { RoomAccess(leftAt: $0, membership: membership.membership) }
        case .invite, .knock: return nil
        }
    }

    /// Whether a room shows itself to everybody now.
    func isWorldReadable(_ room: Room) async throws -> Bool {
        guard let key = try await database.existingNumber(ofStateKey: .historyVisibility) else {
            return false
        }
        return try await database.read { reader in
            let tree = StateTree(rows: self.database.stateRows, room: room.nid)
            guard let nid = try await tree.event(for: key, in: room.record.state, reader),
                let stored = try await self.database.events([nid], reader).first
            else { return false }
            return HistoryVisibility(event: try self.context.parse(stored, room.version)) == .worldReadable
        }
    }
}
