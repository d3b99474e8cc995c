/// Whether a user follows a thread (MSC4306).
public struct ThreadSubscription: Sendable {
    public let room: RoomNID
    public let root: EventNID
    public let isSubscribed: Bool
    /// Whether a client subscribed of itself, because the user was mentioned.
    public let isAutomatic: Bool
    /// When it became so.
    public let position: Int64
}

extension Database {
    private static let columns = "room_nid, root_nid, subscribed, automatic, position"
    private static let one = Statement(
        "SELECT \(columns) FROM thread_subscriptions WHERE user_nid = $1 AND room_nid = $2 AND root_nid = $3")
    private static let between =
        "SELECT \(columns) FROM thread_subscriptions WHERE user_nid = $1 AND position > $2 AND position <= $3"
    private static let newest = Statement("\(between) ORDER BY position DESC LIMIT $4")
    private static let newestThatHold = Statement("\(between) AND subscribed = 1 ORDER BY position DESC LIMIT $4")

    private static let followers = Statement(
        """
        SELECT t.user_nid FROM thread_subscriptions t JOIN memberships m ON m.user_nid = t.user_nid AND m.room_nid = t.room_nid
        WHERE t.room_nid = $1 AND t.root_nid = $2 AND t.subscribed = 1 AND m.membership = 1
        """)

    private static func subscription(_ row: any Row) -> ThreadSubscription {
        ThreadSubscription(
            room: RoomNID(row.integer(0)), root: EventNID(row.integer(1)), isSubscribed: row.flag(2),
            isAutomatic: row.flag(3), position: row.integer(4))
    }

    /// A user's subscription to a thread, or that there was one; nil if there never was. One point read.
    public func threadSubscription(
        of user: UserNID, to root: EventNID, in room: RoomNID, _ reader: any Reader
    ) async throws -> ThreadSubscription? {
        try await reader.first(Self.one, [user.value, room.value, root.value], Self.subscription)
    }

    /// The members of a room who follow a thread. One range of one index and two point reads for each.
    public func followers(of root: EventNID, in room: RoomNID, _ reader: any Reader) async throws -> [UserNID] {
        try await reader.query(Self.followers, [room.value, root.value]) { UserNID($0.integer(0)) }
    }

    /// The newest changes of a user's subscriptions between two positions, newest first. One range of one index.
    ///
    /// - Parameter includesEnded: whether those are among them that have ended.
    public func threadSubscriptions(
        of user: UserNID, after: Int64, upTo: Int64, limit: Int, includesEnded: Bool, _ reader: any Reader
    ) async throws -> [ThreadSubscription] {
        try await reader.query(
            includesEnded ? Self.newest : Self.newestThatHold,
            [user.value, .integer(after), .integer(upTo), .integer(Int64(limit))], Self.subscription)
    }
}

extension Write {
    private static let putSubscription =
        """
        INSERT INTO thread_subscriptions (user_nid, room_nid, root_nid, subscribed, automatic, position)
        VALUES ($1, $2, $3, $4, $5, $6)
        ON CONFLICT (user_nid, room_nid, root_nid) DO UPDATE SET subscribed = excluded.subscribed,
            automatic = excluded.automatic, position = excluded.position
        """
    private static let put = Statement(putSubscription)
    private static let putUnlessChanged = Statement("\(putSubscription) WHERE thread_subscriptions.position = $7")

    /// Subscribes a user to a thread, or ends that (`isSubscribed` false), because the user wants it.
    public mutating func setThreadSubscription(
        of user: UserNID, to root: EventNID, in room: RoomNID, isSubscribed: Bool
    ) {
        let position = takePosition()
        run(Self.put, user.value, room.value, root.value, .flag(isSubscribed), .flag(false), position)
        topics.append(.user(user))
    }

    /// Subscribes a user to a thread because a client does it of itself; fails as a conflict if the subscription isn't what it was
    /// read as.
    public mutating func subscribeAutomatically(
        _ user: UserNID, to root: EventNID, in room: RoomNID, from known: ThreadSubscription?
    ) {
        let position = takePosition()
        expect(
            1, otherwise: "the subscription is another now", Self.putUnlessChanged, user.value, room.value, root.value,
            .flag(true), .flag(true), position, .integer(known?.position ?? -1))
        topics.append(.user(user))
    }
}
