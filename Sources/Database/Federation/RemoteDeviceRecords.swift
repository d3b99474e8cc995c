import MatrixCore

/// Devices and keys of users of other servers, as those told them.
extension Database {
    private static let find = Statement("SELECT fetched_ts, answer FROM remote_devices WHERE user_nid = $1")

    /// What was told of a user's devices, as far as nothing has changed since.
    public func remoteDevices(of user: UserNID) async throws -> [UInt8]? {
        try await readOnce { try await $0.first(Self.find, [user.value]) { $0.blob(1) } }
    }

    private static let sharing = Statement(
        """
        SELECT 1 FROM memberships theirs JOIN memberships ours
            ON ours.room_nid = theirs.room_nid AND ours.membership = 1
        JOIN accounts a ON a.user_nid = ours.user_nid
        WHERE theirs.user_nid = $1 AND theirs.membership = 1 LIMIT 1
        """)

    /// Whether a user shares a room with anybody here: then this server is told when their devices change.
    public func sharesRooms(_ user: UserNID) async throws -> Bool {
        try await readOnce { try await $0.first(Self.sharing, [user.value]) { _ in true } } ?? false
    }
}

extension Write {
    private static let put = Statement(
        """
        INSERT INTO remote_devices (user_nid, fetched_ts, answer) VALUES ($1, $2, $3)
        ON CONFLICT (user_nid) DO UPDATE SET fetched_ts = excluded.fetched_ts, answer = excluded.answer
        """)
    private static let drop = Statement("DELETE FROM remote_devices WHERE user_nid = $1")

    private static let dropOfRoom = Statement(
        """
        DELETE FROM remote_devices WHERE user_nid IN (SELECT user_nid FROM memberships WHERE room_nid = $1 AND membership = 1)
        AND NOT EXISTS (SELECT 1 FROM room_servers WHERE room_nid = $1 AND server_nid = $2 AND joined > 0)
        """)

    /// This server may have left a room for good: then it isn't told any more when devices of those in it change.
    public mutating func dropRemoteDevices(ofAllIn room: RoomNID, unlessJoinedBy server: ServerNID) {
        run(Self.dropOfRoom, room.value, server.value)
    }

    public mutating func putRemoteDevices(_ answer: [UInt8], of user: UserNID, at time: Int64) {
        run(Self.put, user.value, .integer(time), .blob(answer))
    }

    private static let dropAll = Statement("DELETE FROM remote_devices")

    /// Nothing that was told of devices can be relied on.
    public mutating func dropAllRemoteDevices() { run(Self.dropAll) }

    /// What was told of a user's devices is true no more.
    public mutating func dropRemoteDevices(of user: UserNID) { run(Self.drop, user.value) }
}
