/// Which fields of whose profiles have changed: one row for each field, with the position of its last change (MSC4429). It costs the
/// same whoever watches; a reader's rooms are held against it when the reader asks.
extension Database {
    private static let changed = Statement(
        """
        SELECT c.user_nid, c.field FROM profile_changes c WHERE c.position > $2 AND c.position <= $3
        AND (c.user_nid = $1 OR \(sharesRoom("c.user_nid")))
        """)

    /// The fields that have changed between two positions, of the reader and of those who share a room with the reader now.
    public func profileChanges(
        sharingWith user: UserNID, after: Int64, upTo: Int64, _ reader: any Reader
    ) async throws -> [UserNID: Set<String>] {
        let rows = try await reader.query(Self.changed, [user.value, .integer(after), .integer(upTo)]) {
            (UserNID($0.integer(0)), $0.text(1))
        }
        return Dictionary(grouping: rows, by: \.0).mapValues { Set($0.map(\.1)) }
    }

    private static let ofUser = Statement("SELECT display_name, avatar_url FROM accounts WHERE user_nid = $1")
    private static let fieldsOf = Statement("SELECT field, value FROM profile_fields WHERE user_nid = $1")

    /// The fields that users with accounts here show, as JSON. Two point reads for each.
    public func profiles(
        of users: [UserNID], _ reader: any Reader
    ) async throws -> [UserNID: (name: String?, avatar: String?, fields: [String: [UInt8]])] {
        let asked = users.map { [$0.value] }
        var profiles: [UserNID: (name: String?, avatar: String?, fields: [String: [UInt8]])] = [:]
        for (user, name, avatar) in try await reader.queryEach(
            Self.ofUser, asked, { (users[$0], $1.optionalText(0), $1.optionalText(1)) })
        {
            profiles[user] = (name, avatar, [:])
        }
        for (user, field, value) in try await reader.queryEach(
            Self.fieldsOf, asked, { (users[$0], $1.text(0), $1.blob(1)) })
        {
            profiles[user]?.fields[field] = value
        }
        return profiles
    }

    private static let accountsSharing = Statement(
        """
        SELECT DISTINCT a.user_nid FROM memberships own
        JOIN memberships theirs ON theirs.room_nid = own.room_nid AND theirs.membership = 1
        JOIN accounts a ON a.user_nid = theirs.user_nid
        WHERE own.user_nid = $1 AND own.membership = 1 LIMIT $2
        """)

    /// Users with accounts here who share a room with a user.
    public func accounts(sharingWith user: UserNID, limit: Int, _ reader: any Reader) async throws -> [UserNID] {
        try await reader.query(Self.accountsSharing, [user.value, .integer(Int64(limit))]) { UserNID($0.integer(0)) }
    }

    /// Has all who share a room with a user hear of a write which changes a field of the user's profile.
    public func announceProfile(_ field: String, of user: UserNID, in write: inout Write) async throws {
        let rooms = try await read { try await self.joinedRooms(of: user, $0) }
        write.changeProfile(field, of: user)
        write.topics += [.user(user), .profile(user)] + rooms.map { .deviceListIn($0) }
    }
}

extension Write {
    private static let change = Statement(
        """
        INSERT INTO profile_changes (user_nid, field, position) VALUES ($1, $2, $3)
        ON CONFLICT (user_nid, field) DO UPDATE SET position = excluded.position
        """)

    fileprivate mutating func changeProfile(_ field: String, of user: UserNID) {
        run(Self.change, user.value, .text(field), takePosition())
    }
}
