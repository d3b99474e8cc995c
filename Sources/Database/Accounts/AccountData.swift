/// One entry of a user's account data.
public struct AccountDataEntry: Sendable {
    /// nil: of the account as a whole.
    public let room: RoomNID?
    public let type: String
    /// A JSON object.
    public let content: [UInt8]

    public init(room: RoomNID?, type: String, content: [UInt8]) {
        self.room = room
        self.type = type
        self.content = content
    }
}

extension Database {
    private static let since = Statement(
        """
        SELECT room_nid, type, content FROM account_data WHERE user_nid = $1 AND position > $2 AND position <= $3
        ORDER BY position
        """)
    private static let one = Statement(
        "SELECT content FROM account_data WHERE user_nid = $1 AND room_nid = $2 AND type = $3")

    /// A user's account data that changed between two positions. One range of one index.
    public func accountData(
        of user: UserNID, after: Int64, upTo: Int64, _ reader: any Reader
    ) async throws -> [AccountDataEntry] {
        try await reader.query(Self.since, [user.value, .integer(after), .integer(upTo)]) { row in
            AccountDataEntry(
                room: row.integer(0) == 0 ? nil : RoomNID(row.integer(0)), type: row.text(1), content: row.blob(2))
        }
    }

    private static let ofRoom = Statement(
        "SELECT room_nid, type, content FROM account_data WHERE user_nid = $1 AND room_nid = $2 AND position <= $3")

    /// All of a user's account data of one room. One range of one index.
    public func accountData(
        of user: UserNID, in room: RoomNID, upTo: Int64, _ reader: any Reader
    ) async throws -> [AccountDataEntry] {
        try await reader.query(Self.ofRoom, [user.value, room.value, .integer(upTo)]) { row in
            AccountDataEntry(room: room, type: row.text(1), content: row.blob(2))
        }
    }

    public func accountData(of user: UserNID, room: RoomNID?, type: String) async throws -> [UInt8]? {
        try await readOnce { reader in
            try await reader.first(Self.one, [user.value, .integer(room?.rawValue ?? 0), .text(type)]) { $0.blob(0) }
        }
    }
}

extension Database {
    private static let bytes = Statement(
        "SELECT CAST(coalesce(sum(256 + length(content)), 0) AS bigint) FROM account_data WHERE user_nid = $1")

    /// What all account data of a user takes. One range.
    public func accountDataBytes(of user: UserNID) async throws -> Int64 {
        try await readOnce { try await $0.first(Self.bytes, [user.value]) { $0.integer(0) } ?? 0 }
    }
}

/// Account data as it is stored, and when it was: who changes a part of it finds out whether somebody else has done so meanwhile.
public struct StoredAccountData: Sendable {
    public let content: [UInt8]
    let position: Int64
}

extension Database {
    private static let stored = Statement(
        "SELECT content, position FROM account_data WHERE user_nid = $1 AND room_nid = $2 AND type = $3")

    public func storedAccountData(
        of user: UserNID, room: RoomNID?, type: String
    ) async throws -> StoredAccountData? {
        let key: [SQLValue] = [user.value, .integer(room?.rawValue ?? 0), .text(type)]
        return try await readOnce { reader in
            try await reader.first(Self.stored, key) { StoredAccountData(content: $0.blob(0), position: $0.integer(1)) }
        }
    }
}

extension Write {
    private static let replace = Statement(
        """
        UPDATE account_data SET content = $4, position = $5
        WHERE user_nid = $1 AND room_nid = $2 AND type = $3 AND position = $6
        """)
    private static let begin = Statement(
        """
        INSERT INTO account_data (user_nid, room_nid, type, content, position) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT DO NOTHING
        """)

    /// Changes account data if it is still what it was; fails as a conflict otherwise.
    ///
    /// - Parameter old: nil if there was none.
    public mutating func replaceAccountData(
        _ old: StoredAccountData?, of user: UserNID, room: RoomNID?, type: String, content: [UInt8]
    ) {
        let position = takePosition()
        let (room, type) = (SQLValue.integer(room?.rawValue ?? 0), SQLValue.text(type))
        let what = "the account data was changed by somebody else"
        if let old {
            expect(
                1, otherwise: what, Self.replace, user.value, room, type, .blob(content), position,
                .integer(old.position))
        } else {
            expect(1, otherwise: what, Self.begin, user.value, room, type, .blob(content), position)
        }
        topics.append(.user(user))
    }

    private static let put = Statement(
        """
        INSERT INTO account_data (user_nid, room_nid, type, content, position) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (user_nid, room_nid, type) DO UPDATE SET content = excluded.content, position = excluded.position
        """)

    public mutating func putAccountData(of user: UserNID, room: RoomNID?, type: String, content: [UInt8]) {
        let position = takePosition()
        run(Self.put, user.value, .integer(room?.rawValue ?? 0), .text(type), .blob(content), position)
        topics.append(.user(user))
    }

    private static let check = Statement(
        """
        DELETE FROM account_data WHERE user_nid = $1
        AND (SELECT coalesce(sum(256 + length(content)), 0) FROM account_data WHERE user_nid = $1) > $2
        """)

    /// Fails as a conflict if all account data of a user, as the write has made it, takes more than so many bytes.
    public mutating func checkAccountData(of user: UserNID, within bytes: Int64) {
        // What must not delete anything leaves all as it was, by failing if it would.
        expect(0, otherwise: "the account data is too large", Self.check, user.value, .integer(bytes))
    }
}

extension Database {
    private static let ofType = Statement(
        "SELECT room_nid, content FROM account_data WHERE user_nid = $1 AND room_nid > 0 AND type = $2")

    /// A user's account data of one type, of all rooms. One range of one index.
    public func accountDataOfRooms(
        of user: UserNID, type: String, _ reader: any Reader
    ) async throws -> [(room: RoomNID, content: [UInt8])] {
        try await reader.query(Self.ofType, [user.value, .text(type)]) { (RoomNID($0.integer(0)), $0.blob(1)) }
    }
}
