/// A backup of a user's room keys, without the keys (Client-Server API, "Server-side key backups").
public struct RoomKeyBackup: Sendable {
    public let version: Int64
    public let algorithm: String
    /// A JSON object.
    public let authData: [UInt8]
    /// Goes up with each change of the keys.
    public let etag: Int64
    public let count: Int64
    public let isDeleted: Bool
}

/// By what keys of one session are compared: which of two a backup keeps.
public struct RoomKeyRank: Sendable, Equatable {
    public let firstMessageIndex: Int64
    public let forwardedCount: Int64
    public let isVerified: Bool

    public init(firstMessageIndex: Int64, forwardedCount: Int64, isVerified: Bool) {
        self.firstMessageIndex = firstMessageIndex
        self.forwardedCount = forwardedCount
        self.isVerified = isVerified
    }
}

/// The key of a session, as it is backed up.
public struct BackedUpKey: Sendable {
    public let roomID: String
    public let sessionID: String
    public let rank: RoomKeyRank
    /// A JSON object, encrypted by the client.
    public let sessionData: [UInt8]

    public init(roomID: String, sessionID: String, rank: RoomKeyRank, sessionData: [UInt8]) {
        self.roomID = roomID
        self.sessionID = sessionID
        self.rank = rank
        self.sessionData = sessionData
    }
}

/// Which keys of a backup are meant.
public enum RoomKeySelection: Sendable {
    case all
    case room(String)
    case session(room: String, session: String)

    /// The condition in SQL, with parameters from `$3` on.
    fileprivate var values: [SQLValue] {
        switch self {
        case .all: []
        case .room(let room): [.identifier(room)]
        case .session(let room, let session): [.identifier(room), .text(session)]
        }
    }

    /// One of the three statements.
    fileprivate func choose(_ statements: [Statement]) -> Statement { statements[values.count] }

    fileprivate static let conditions = [
        "user_nid = $1 AND version = $2", "user_nid = $1 AND version = $2 AND room_id = $3",
        "user_nid = $1 AND version = $2 AND room_id = $3 AND session_id = $4",
    ]
}

extension Database {
    private static let columns = "version, algorithm, auth_data, etag, count, deleted"
    private static let newest = Statement(
        "SELECT \(columns) FROM room_key_backups WHERE user_nid = $1 AND deleted = 0 ORDER BY version DESC LIMIT 1")
    private static let one = Statement(
        "SELECT \(columns) FROM room_key_backups WHERE user_nid = $1 AND version = $2")
    private static let highest = Statement("SELECT max(version) FROM room_key_backups WHERE user_nid = $1")

    private static func backup(_ row: any Row) -> RoomKeyBackup {
        RoomKeyBackup(
            version: row.integer(0), algorithm: row.text(1), authData: row.blob(2), etag: row.integer(3),
            count: row.integer(4), isDeleted: row.flag(5))
    }

    /// The backup that a user's clients write to; nil if there is none.
    public func currentRoomKeyBackup(of user: UserNID) async throws -> RoomKeyBackup? {
        try await readOnce { try await $0.first(Self.newest, [user.value], Self.backup) }
    }

    /// A backup by its version, a deleted one too.
    public func roomKeyBackup(_ version: Int64, of user: UserNID) async throws -> RoomKeyBackup? {
        try await readOnce { try await $0.first(Self.one, [user.value, .integer(version)], Self.backup) }
    }

    /// The highest version that was ever given out, 0 if none.
    public func highestRoomKeyBackup(of user: UserNID) async throws -> Int64 {
        try await readOnce { try await $0.first(Self.highest, [user.value]) { $0.integer(0) } } ?? 0
    }

    private static let keys = RoomKeySelection.conditions.map {
        Statement(
            """
            SELECT room_id, session_id, first_message_index, forwarded_count, is_verified, session_data FROM room_keys
            WHERE \($0) ORDER BY room_id, session_id
            """)
    }

    /// The keys of a backup, ordered by rooms, given to a closure one by one.
    public func eachRoomKey(
        _ selection: RoomKeySelection, of version: Int64, _ user: UserNID, _ reader: any Reader,
        _ body: (BackedUpKey) throws -> Void
    ) async throws {
        _ = try await reader.query(
            selection.choose(Self.keys), [user.value, .integer(version)] + selection.values
        ) { row in
            try body(
                BackedUpKey(
                    roomID: row.text(0), sessionID: row.text(1),
                    rank: RoomKeyRank(
                        firstMessageIndex: row.integer(2), forwardedCount: row.integer(3), isVerified: row.flag(4)),
                    sessionData: row.blob(5)))
        }
    }

    private static let counts = RoomKeySelection.conditions.map {
        Statement("SELECT count(*) FROM room_keys WHERE \($0)")
    }

    public func countRoomKeys(
        _ selection: RoomKeySelection, of version: Int64, _ user: UserNID
    ) async throws -> Int64 {
        try await read { reader in
            try await reader.first(
                selection.choose(Self.counts), [user.value, .integer(version)] + selection.values
            ) { $0.integer(0) }
        } ?? 0
    }

    /// Sessions that one statement reads or writes.
    fileprivate static let chunk = 50

    /// Looks each session up by the primary key: as `IN`, SQLite would go through the whole backup.
    private static let ranks = Statement(
        """
        SELECT k.room_id, k.session_id, k.first_message_index, k.forwarded_count, k.is_verified
        FROM (VALUES \((0..<chunk).map { "($\($0 * 2 + 3), $\($0 * 2 + 4))" }.joined(separator: ", "))) AS asked
        CROSS JOIN room_keys k WHERE k.user_nid = $1 AND k.version = $2
        AND k.room_id = asked.column1 AND k.session_id = asked.column2
        """)

    /// A session's place in a backup, compared by bytes.
    public struct SessionName: Hashable, Sendable {
        let room: [UInt8]
        let session: [UInt8]

        public init(_ roomID: String, _ sessionID: String) {
            room = Array(roomID.utf8)
            session = Array(sessionID.utf8)
        }
    }

    /// What a backup has of the sessions already. A statement for fifty sessions.
    public func roomKeyRanks(
        of keys: [BackedUpKey], in version: Int64, _ user: UserNID
    ) async throws -> [SessionName: RoomKeyRank] {
        let sets = stride(from: 0, to: keys.count, by: Self.chunk).map { start -> [SQLValue] in
            // The last of the keys fills what is left of the statement.
            let values = (start..<start + Self.chunk).flatMap { index -> [SQLValue] in
                let key = keys[min(index, keys.count - 1)]
                return [.identifier(key.roomID), .text(key.sessionID)]
            }
            return [user.value, .integer(version)] + values
        }
        let found = try await read { reader in
            try await reader.queryEach(Self.ranks, sets) { _, row in
                (
                    SessionName(row.text(0), row.text(1)),
                    RoomKeyRank(
                        firstMessageIndex: row.integer(2), forwardedCount: row.integer(3), isVerified: row.flag(4))
                )
            }
        }
        return Dictionary(found) { first, _ in first }
    }
}

extension Write {
    private static let insertBackup = Statement(
        """
        INSERT INTO room_key_backups (user_nid, version, algorithm, auth_data, etag, count) VALUES ($1, $2, $3, $4, 0, 0)
        """)

    /// Adds a backup; fails as a constraint if the version was given out meanwhile.
    public mutating func insertRoomKeyBackup(
        _ version: Int64, algorithm: String, authData: [UInt8], of user: UserNID
    ) {
        run(Self.insertBackup, user.value, .integer(version), .text(algorithm), .blob(authData))
    }

    private static let updateBackup = Statement(
        "UPDATE room_key_backups SET auth_data = $3 WHERE user_nid = $1 AND version = $2 AND deleted = 0")
    private static let deleteBackup = Statement(
        """
        UPDATE room_key_backups SET deleted = 1, count = 0, etag = etag + 1 WHERE user_nid = $1 AND version = $2
        """)
    private static let deletions = RoomKeySelection.conditions.map { Statement("DELETE FROM room_keys WHERE \($0)") }
    private static let move = Statement(
        """
        UPDATE room_key_backups SET etag = etag + 1, count = count + $4
        WHERE user_nid = $1 AND version = $2 AND etag = $3 AND deleted = 0
        """)

    public mutating func updateRoomKeyBackup(_ version: Int64, authData: [UInt8], of user: UserNID) {
        expect(
            1, otherwise: "the backup is gone", Self.updateBackup, user.value, .integer(version), .blob(authData))
    }

    public mutating func deleteRoomKeyBackup(_ version: Int64, of user: UserNID) {
        run(Self.deleteBackup, user.value, .integer(version))
        run(Self.deletions[0], user.value, .integer(version))
    }

    /// Changes how many keys a backup has; fails as a conflict if somebody has changed them since it was read.
    public mutating func moveRoomKeyBackup(_ backup: RoomKeyBackup, by difference: Int64, of user: UserNID) {
        expect(
            1, otherwise: "the backup has changed", Self.move, user.value, .integer(backup.version),
            .integer(backup.etag), .integer(difference))
    }

    public mutating func deleteRoomKeys(_ selection: RoomKeySelection, of version: Int64, _ user: UserNID) {
        run(selection.choose(Self.deletions), [user.value, .integer(version)] + selection.values)
    }

    private static func putStatement(_ count: Int) -> Statement {
        let rows = (0..<count).map { row in
            "($1, $2, " + (0..<6).map { "$\(row * 6 + $0 + 3)" }.joined(separator: ", ") + ")"
        }
        return Statement(
            """
            INSERT INTO room_keys (user_nid, version, room_id, session_id, first_message_index, forwarded_count,
                is_verified, session_data) VALUES \(rows.joined(separator: ", "))
            ON CONFLICT (user_nid, version, room_id, session_id) DO UPDATE SET
                first_message_index = excluded.first_message_index, forwarded_count = excluded.forwarded_count,
                is_verified = excluded.is_verified, session_data = excluded.session_data
            """)
    }

    private static let putMany = putStatement(Database.chunk)
    private static let putOne = putStatement(1)

    /// Puts keys into a backup, in place of those that are there. Fifty go into one statement.
    public mutating func putRoomKeys(_ keys: [BackedUpKey], in version: Int64, of user: UserNID) {
        var rest = keys[...]
        while !rest.isEmpty {
            let part = rest.prefix(rest.count >= Database.chunk ? Database.chunk : 1)
            rest = rest.dropFirst(part.count)
            var values: [SQLValue] = [user.value, .integer(version)]
            for key in part {
                values += [
                    .identifier(key.roomID), .text(key.sessionID), .integer(key.rank.firstMessageIndex),
                    .integer(key.rank.forwardedCount), .flag(key.rank.isVerified), .blob(key.sessionData),
                ]
            }
            run(part.count == 1 ? Self.putOne : Self.putMany, values)
        }
    }
}
