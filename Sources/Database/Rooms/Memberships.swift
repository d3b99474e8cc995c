import MatrixCore

/// What a user is in a room, as the database numbers it. The raw values are stored.
public enum StoredMembership: Int64, Sendable {
    case leave = 0
    case join = 1
    case invite = 2
    case ban = 3
    case knock = 4
}

/// How a membership ended that is `leave` or `ban` now. The raw values are stored.
public struct MembershipEnding: OptionSet, Sendable, Hashable {
    public let rawValue: Int64
    public init(rawValue: Int64) { self.rawValue = rawValue }

    /// The user was in the room just before.
    public static let wasJoined = MembershipEnding(rawValue: 1)
    /// The user was invited, or had knocked, just before.
    public static let wasInvited = MembershipEnding(rawValue: 2)
    /// Somebody else ended it.
    public static let byOther = MembershipEnding(rawValue: 4)
}

/// A user's current membership of one room.
public struct RoomMembership: Sendable {
    public let room: RoomNID
    public let membership: StoredMembership
    public let event: EventNID
    /// The position since which it is so.
    public let position: Int64
    public let forgotten: Bool
    /// How it ended, for `leave` and `ban`; nil where that isn't known.
    public let ending: MembershipEnding?
}

extension Database {
    private static let ofUser = Statement(
        "SELECT room_nid, membership, event_nid, position, forgotten, ending FROM memberships WHERE user_nid = $1")

    /// All memberships of a user. One range of one index.
    public func memberships(of user: UserNID, _ reader: any Reader) async throws -> [RoomMembership] {
        try await reader.query(Self.ofUser, [user.value], Self.membership)
    }

    private static let one = Statement(
        """
        SELECT room_nid, membership, event_nid, position, forgotten, ending FROM memberships WHERE user_nid = $1 AND room_nid = $2
        """)

    private static func membership(_ row: any Row) -> RoomMembership {
        RoomMembership(
            room: RoomNID(row.integer(0)), membership: StoredMembership(rawValue: row.integer(1)) ?? .leave,
            event: EventNID(row.integer(2)), position: row.integer(3), forgotten: row.flag(4),
            ending: row.optionalInteger(5).map { MembershipEnding(rawValue: $0) })
    }

    /// A user's membership of one room; nil if there never was one. One point read.
    public func membership(
        of user: UserNID, in room: RoomNID, _ reader: any Reader
    ) async throws -> RoomMembership? {
        try await reader.first(Self.one, [user.value, room.value], Self.membership)
    }

    /// The same, asked by itself.
    public func membership(of user: UserNID, in room: RoomNID) async throws -> RoomMembership? {
        try await readOnce { try await membership(of: user, in: room, $0) }
    }

    private static let isMember = Statement(
        "SELECT 1 FROM memberships WHERE user_nid = $2 AND room_nid = $1 AND membership = 1")

    /// Those of the users who are in a room. A point read for each.
    public func members(among users: [UserNID], in room: RoomNID, _ reader: any Reader) async throws -> [UserNID] {
        try await reader.queryEach(Self.isMember, users.map { [room.value, $0.value] }) { index, _ in users[index] }
    }

    private static let ofRoom = Statement(
        "SELECT user_nid FROM memberships WHERE room_nid = $1 AND membership = $2")

    /// The users who are now so in a room. One range of one index.
    public func users(
        in room: RoomNID, _ membership: StoredMembership, _ reader: any Reader
    ) async throws -> [UserNID] {
        try await reader.query(Self.ofRoom, [room.value, .integer(membership.rawValue)]) { UserNID($0.integer(0)) }
    }

    private static let someOfRoom = Statement(
        "SELECT user_nid FROM memberships WHERE room_nid = $1 AND membership = $2 ORDER BY user_nid LIMIT $3")

    /// Some of the users who are now so in a room: those known here for longest.
    public func users(
        in room: RoomNID, _ membership: StoredMembership, limit: Int, _ reader: any Reader
    ) async throws -> [UserNID] {
        try await reader.query(
            Self.someOfRoom, [room.value, .integer(membership.rawValue), .integer(Int64(limit))]
        ) { UserNID($0.integer(0)) }
    }

    private static let count = Statement("SELECT count(*) FROM memberships WHERE room_nid = $1 AND membership = $2")

    /// How many users are now so in a room. One range of one index.
    public func count(of membership: StoredMembership, in room: RoomNID, _ reader: any Reader) async throws -> Int {
        try await reader.first(Self.count, [room.value, .integer(membership.rawValue)]) { Int($0.integer(0)) } ?? 0
    }

    private static let localOfRoom = Statement(
        """
        SELECT m.user_nid FROM memberships m JOIN accounts a ON a.user_nid = m.user_nid
        WHERE m.room_nid = $1 AND m.membership = $2
        """)

    /// The users of a room who have accounts here.
    public func localUsers(
        in room: RoomNID, _ membership: StoredMembership, _ reader: any Reader
    ) async throws -> [UserNID] {
        try await reader.query(Self.localOfRoom, [room.value, .integer(membership.rawValue)]) { UserNID($0.integer(0)) }
    }

    private static let departed = Statement(
        """
        SELECT m.user_nid, m.event_nid FROM memberships m JOIN accounts a ON a.user_nid = m.user_nid
        WHERE m.room_nid = $1 AND m.membership IN ($2, $3) ORDER BY m.position DESC LIMIT $4
        """)

    /// Users who have accounts here and are out of a room, with the events that say so: those who were last in it first.
    public func departedLocalUsers(
        of room: RoomNID, limit: Int, _ reader: any Reader
    ) async throws -> [(user: UserNID, event: EventNID)] {
        let out: [StoredMembership] = [.leave, .ban]
        return try await reader.query(
            Self.departed, [room.value] + out.map { .integer($0.rawValue) } + [.integer(Int64(limit))]
        ) { (UserNID($0.integer(0)), EventNID($0.integer(1))) }
    }
}

extension Write {
    private static let putText = """
        INSERT INTO memberships (user_nid, room_nid, membership, event_nid, position, forgotten, ending)
        VALUES ($1, $2, $3, $4, $5, 0, nullif($6, -1))
        ON CONFLICT (user_nid, room_nid) DO UPDATE SET membership = excluded.membership, event_nid = excluded.event_nid,
            position = excluded.position, forgotten = 0, ending = excluded.ending
        """
    private static let put = Statement(putText)
    private static let putMany = Statement(putText, isIndependent: true)

    /// Notes what a user is in a room.
    ///
    /// - Parameter amongOthers: whether it is one of many in the write, each of another user: they are one statement then.
    public mutating func setMembership(
        _ membership: StoredMembership, of user: UserNID, in room: RoomNID, event: EventNID, position: SQLValue,
        ending: MembershipEnding? = nil, amongOthers: Bool = false
    ) {
        run(
            // Of a column that is null in all of them it can't be told of what type it is.
            amongOthers ? Self.putMany : Self.put, user.value, room.value, .integer(membership.rawValue), event.value,
            position,
            .integer(ending?.rawValue ?? -1))
        topics.append(.memberships(user))
    }

    private static let forget = Statement(
        "UPDATE memberships SET forgotten = 1 WHERE user_nid = $1 AND room_nid = $2 AND membership IN (0, 3)")

    /// Forgets a room that the user has left; fails as a conflict if the user has not.
    public mutating func forget(_ room: RoomNID, for user: UserNID) {
        expect(1, otherwise: "the user has not left the room", Self.forget, user.value, room.value)
        topics.append(.memberships(user))
    }
}
