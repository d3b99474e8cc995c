/// Whose list of devices has changed: one row for each user, with the position of the last change. It costs the same
/// whoever watches; a reader's rooms are held against it when the reader asks.
extension Database {
    /// Whether a user shares a room with the reader (`$1`), both joined.
    static func sharesRoom(_ user: String) -> String {
        """
        EXISTS (SELECT 1 FROM memberships theirs JOIN memberships own
            ON own.user_nid = $1 AND own.room_nid = theirs.room_nid AND own.membership = 1
            WHERE theirs.user_nid = \(user) AND theirs.membership = 1)
        """
    }

    private static let changed = Statement(
        """
        SELECT d.user_nid FROM device_lists d WHERE d.position > $2 AND (d.user_nid = $1 OR \(sharesRoom("d.user_nid")))
        """)
    private static let signed = Statement(
        """
        SELECT DISTINCT s.user_nid FROM key_signatures s WHERE s.signer_nid = $1 AND s.position > $2
        AND s.user_nid <> $1 AND \(sharesRoom("s.user_nid"))
        """)
    private static let sharing = Statement("SELECT 1 WHERE \(sharesRoom("$2"))")

    /// Users whose devices or cross-signing keys have changed after a position, the reader among them, and others who share
    /// a room with the reader now; also those whose keys the reader has signed since.
    public func usersWithChangedDevices(
        sharingWith user: UserNID, after: Int64, _ reader: any Reader
    ) async throws -> Set<UserNID> {
        let values: [SQLValue] = [user.value, .integer(after)]
        var users = Set(try await reader.query(Self.changed, values) { UserNID($0.integer(0)) })
        users.formUnion(try await reader.query(Self.signed, values) { UserNID($0.integer(0)) })
        return users
    }

    /// Those of the users who share a room with a user now.
    public func users(
        _ users: [UserNID], sharingWith user: UserNID, _ reader: any Reader
    ) async throws -> Set<UserNID> {
        Set(
            try await reader.queryEach(Self.sharing, users.map { [user.value, $0.value] }) { index, _ in users[index] })
    }

    private static let moved = Statement(
        "SELECT user_nid, membership, position FROM memberships WHERE room_nid = $1 AND position > $2")
    private static let newestMoved = Statement(
        "SELECT user_nid, membership, position FROM memberships WHERE room_nid = $1 ORDER BY position DESC LIMIT $2")

    /// Somebody whose member event in a room is young.
    public struct Mover: Sendable {
        public let user: UserNID
        /// Whether the user is joined now.
        public let isJoined: Bool
        public let position: Int64

        init(_ row: any Row) {
            user = UserNID(row.integer(0))
            isJoined = row.integer(1) == StoredMembership.join.rawValue
            position = row.integer(2)
        }
    }

    /// The users whose member events in a room are younger than a position. One range of one index.
    public func movers(in room: RoomNID, after: Int64, _ reader: any Reader) async throws -> [Mover] {
        try await reader.query(Self.moved, [room.value, .integer(after)], Mover.init)
    }

    /// The users with the youngest member events in a room. The end of one range of one index.
    public func newestMovers(in room: RoomNID, limit: Int, _ reader: any Reader) async throws -> NewestRows<Mover> {
        NewestRows(
            try await reader.query(Self.newestMoved, [room.value, .integer(Int64(limit))], Mover.init), limit: limit,
            position: \.position)
    }

    private static let changedAt = Statement("SELECT position FROM device_lists WHERE user_nid = $1")

    /// When a user's devices or cross-signing keys changed last; 0 if never.
    public func deviceListPosition(of user: UserNID) async throws -> Int64 {
        try await readOnce { try await $0.first(Self.changedAt, [user.value]) { $0.integer(0) } } ?? 0
    }

    private static let joinedRooms = Statement(
        "SELECT room_nid FROM memberships WHERE user_nid = $1 AND membership = 1")

    func joinedRooms(of user: UserNID, _ reader: any Reader) async throws -> [RoomNID] {
        try await reader.query(Self.joinedRooms, [user.value]) { RoomNID($0.integer(0)) }
    }

    /// Has all who share a room with a user hear of a write which changes the user's list of devices. What was read of the
    /// user's rooms only decides who is woken: the change itself is found by its position.
    public func announceDevices(of user: UserNID, in write: inout Write) async throws {
        let rooms = try await read { try await self.joinedRooms(of: user, $0) }
        write.topics += [.user(user)] + rooms.map { .deviceListIn($0) }
    }
}

extension Write {
    private static let change = Statement(
        """
        INSERT INTO device_lists (user_nid, position) VALUES ($1, $2)
        ON CONFLICT (user_nid) DO UPDATE SET position = excluded.position
        """)
    private static let changeIfKeys = Statement(
        """
        INSERT INTO device_lists (user_nid, position)
        SELECT $1, $2 WHERE EXISTS (SELECT 1 FROM device_keys WHERE user_nid = $1 AND device_id = $3)
        ON CONFLICT (user_nid) DO UPDATE SET position = excluded.position
        """)

    /// Notes that a user's devices or cross-signing keys are others now. Who must hear of it:
    /// ``Database/announceDevices(of:in:)``.
    public mutating func changeDeviceList(of user: UserNID) {
        run(Self.change, user.value, takePosition())
        topics.append(.deviceList(user))
    }

    /// The same, if the device has identity keys: others don't see devices without.
    mutating func changeDeviceList(of user: UserNID, ifHasKeys deviceID: String) {
        run(Self.changeIfKeys, user.value, takePosition(), .text(deviceID))
        topics.append(.deviceList(user))
    }
}
