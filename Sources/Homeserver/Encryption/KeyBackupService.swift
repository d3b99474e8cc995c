import Database
import MatrixCore

/// Backups of room keys (Client-Server API, "Server-side key backups"): what clients have encrypted, kept for the user's
/// other and later devices.
public final class KeyBackupService: Sendable {
    private let database: Database

    /// What `auth_data` may have in bytes.
    private static let largestAuthData = 65_536
    private static let largestSession = 65_536
    /// Keys of one backup.
    private static let mostKeys: Int64 = 2_000_000
    /// Keys that one write puts: it holds up others while it is carried out.
    private static let keysPerWrite = 1_000
    /// Attempts while others write into the same backup.
    private static let attempts = 100

    init(database: Database) { self.database = database }

    static let unknown = MatrixError.notFound("There is no such backup.")

    // MARK: - Versions

    /// Makes a backup (`POST /room_keys/version`), which is from now on the one that is written to.
    public func create(algorithm: String, authData: JSONView, for requester: Requester) async throws -> String {
        guard (1...255).contains(algorithm.utf8.count) else {
            throw MatrixError.invalidParam("“algorithm” has 1 to 255 bytes.")
        }
        let authData = try Self.authData(authData)
        for _ in 0..<Self.attempts {
            let version = try await database.highestRoomKeyBackup(of: requester.nid) + 1
            var write = Write()
            write.insertRoomKeyBackup(version, algorithm: algorithm, authData: authData, of: requester.nid)
            do {
                try await database.write(write)
                return String(version)
            } catch DatabaseError.constraint { continue }
        }
        throw Self.tooBusy
    }

    private static let tooBusy = MatrixError(
        .unknown, "The backup is being changed by somebody else all the time; try again.", status: 503)

    private static func authData(_ json: JSONView) throws -> [UInt8] {
        guard json.range.count <= largestAuthData else {
            throw MatrixError.tooLarge("“auth_data” may have \(largestAuthData) bytes.")
        }
        return [UInt8](json.raw)
    }

    /// A backup as clients see it (`GET /room_keys/version[/{version}]`).
    ///
    /// - Parameter version: nil for the current one.
    /// - Throws: `M_NOT_FOUND`.
    public func info(_ version: String?, for requester: Requester) async throws -> JSON {
        let found: RoomKeyBackup?
        if let version {
            found = try await backup(version, of: requester)
        } else {
            found = try await database.currentRoomKeyBackup(of: requester.nid)
        }
        guard let found else { throw Self.unknown }
        return [
            "version": .string(String(found.version)), "algorithm": .string(found.algorithm),
            "auth_data": .raw(found.authData), "count": .integer(found.count), "etag": .string(String(found.etag)),
        ]
    }

    private func backup(_ version: String, of requester: Requester) async throws -> RoomKeyBackup {
        guard let number = Int64(version), let found = try await database.roomKeyBackup(number, of: requester.nid),
            !found.isDeleted
        else { throw Self.unknown }
        return found
    }

    /// Changes what a backup is signed by (`PUT /room_keys/version/{version}`); nothing else can be changed.
    ///
    /// - Throws: `M_INVALID_PARAM` if algorithm or version are others.
    public func update(
        _ version: String, algorithm: String, authData: JSONView, bodyVersion: String?, for requester: Requester
    ) async throws {
        let found = try await backup(version, of: requester)
        guard algorithm.hasSameBytes(as: found.algorithm) else {
            throw MatrixError.invalidParam("The algorithm of a backup, \(found.algorithm), can't be changed.")
        }
        if let bodyVersion, !bodyVersion.hasSameBytes(as: version) {
            throw MatrixError.invalidParam("“version” of the body is not that of the path.")
        }
        var write = Write()
        write.updateRoomKeyBackup(found.version, authData: try Self.authData(authData), of: requester.nid)
        do { try await database.write(write) } catch DatabaseError.conflict { throw Self.unknown }
    }

    /// Deletes a backup with all its keys (`DELETE /room_keys/version/{version}`); again, it changes nothing.
    public func delete(_ version: String, for requester: Requester) async throws {
        guard let number = Int64(version), let found = try await database.roomKeyBackup(number, of: requester.nid)
        else {
            throw Self.unknown
        }
        if found.isDeleted { return }
        var write = Write()
        write.deleteRoomKeyBackup(number, of: requester.nid)
        try await database.write(write)
    }

    // MARK: - Keys

    /// How a backup stands after a change of its keys.
    public struct State: Sendable, Equatable {
        public let count: Int64
        public let etag: String
    }

    /// Reads a key from a request.
    public static func key(_ json: JSONView, room: String, session: String) throws -> BackedUpKey {
        guard RoomID(room) != nil else { throw MatrixError.invalidParam("“\(room)” is not a room ID.") }
        guard (1...255).contains(session.utf8.count) else {
            throw MatrixError.invalidParam("A session ID has 1 to 255 bytes.")
        }
        guard let index = try json.optionalInteger("first_message_index") else {
            throw MatrixError.missingParam("first_message_index")
        }
        guard let forwarded = try json.optionalInteger("forwarded_count") else {
            throw MatrixError.missingParam("forwarded_count")
        }
        guard let data = try json.optionalObject("session_data") else { throw MatrixError.missingParam("session_data") }
        guard data.range.count <= largestSession else {
            throw MatrixError.tooLarge("“session_data” may have \(largestSession) bytes.")
        }
        return BackedUpKey(
            roomID: room, sessionID: session,
            rank: RoomKeyRank(
                firstMessageIndex: index, forwardedCount: forwarded, isVerified: try json.requiredBool("is_verified")),
            sessionData: [UInt8](data.raw))
    }

    /// Reads the keys of a room from a request: `{"sessions": {…}}`.
    public static func keys(_ json: JSONView, room: String) throws -> [BackedUpKey] {
        guard let sessions = try json.optionalObject("sessions") else { throw MatrixError.missingParam("sessions") }
        return try sessions.members.map { session, value in
            guard value.isObject else { throw MatrixError.badJSON("The session \(session) must be an object.") }
            return try key(value, room: room, session: session)
        }
    }

    /// Reads the keys of several rooms from a request: `{"rooms": {…}}`.
    public static func keys(_ json: JSONView) throws -> [BackedUpKey] {
        guard let rooms = try json.optionalObject("rooms") else { throw MatrixError.missingParam("rooms") }
        return try rooms.members.flatMap { room, value in
            guard value.isObject else { throw MatrixError.badJSON("The room \(room) must be an object.") }
            return try keys(value, room: room)
        }
    }

    /// Stores keys in the current backup (`PUT /room_keys/keys` and its variants). Of two keys of a session the better one is
    /// kept.
    ///
    /// - Throws: `M_NOT_FOUND`, or `M_WRONG_ROOM_KEYS_VERSION` if the version isn't the current one.
    public func put(_ keys: [BackedUpKey], version: String, for requester: Requester) async throws -> State {
        var state = try await writable(version, of: requester)
        for start in stride(from: 0, to: keys.count, by: Self.keysPerWrite) {
            state = try await put(
                Array(keys[start..<min(start + Self.keysPerWrite, keys.count)]), version: version, requester)
        }
        return State(count: state.count, etag: String(state.etag))
    }

    private func put(_ keys: [BackedUpKey], version: String, _ requester: Requester) async throws -> RoomKeyBackup {
        for _ in 0..<Self.attempts {
            let backup = try await writable(version, of: requester)
            let present = try await database.roomKeyRanks(of: keys, in: backup.version, requester.nid)
            var added: Int64 = 0
            let better = keys.filter { key in
                guard let rank = present[.init(key.roomID, key.sessionID)] else {
                    added += 1
                    return true
                }
                return key.rank.isBetter(than: rank)
            }
            if better.isEmpty { return backup }
            guard backup.count + added <= Self.mostKeys else {
                throw MatrixError(.resourceLimitExceeded, "A backup may have \(Self.mostKeys) keys.")
            }
            var write = Write()
            write.moveRoomKeyBackup(backup, by: added, of: requester.nid)
            write.putRoomKeys(better, in: backup.version, of: requester.nid)
            do { try await database.write(write) } catch DatabaseError.conflict { continue }
            return try await self.backup(version, of: requester)
        }
        throw Self.tooBusy
    }

    /// The backup of the version, if it is the current one.
    private func writable(_ version: String, of requester: Requester) async throws -> RoomKeyBackup {
        guard let current = try await database.currentRoomKeyBackup(of: requester.nid) else { throw Self.unknown }
        if String(current.version).hasSameBytes(as: version) { return current }
        _ = try await backup(version, of: requester)
        throw MatrixError(
            .wrongRoomKeysVersion, "Keys are stored in the newest backup only, which is \(current.version).",
            extra: ["current_version": .string(String(current.version))])
    }

    /// Deletes keys of a backup (`DELETE /room_keys/keys` and its variants).
    public func delete(
        _ selection: RoomKeySelection, version: String, for requester: Requester
    ) async throws -> State {
        for _ in 0..<Self.attempts {
            let backup = try await backup(version, of: requester)
            let count = try await database.countRoomKeys(selection, of: backup.version, requester.nid)
            if count == 0 { return State(count: backup.count, etag: String(backup.etag)) }
            var write = Write()
            write.moveRoomKeyBackup(backup, by: -count, of: requester.nid)
            write.deleteRoomKeys(selection, of: backup.version, requester.nid)
            do { try await database.write(write) } catch DatabaseError.conflict { continue }
            return State(count: backup.count - count, etag: String(backup.etag + 1))
        }
        throw Self.tooBusy
    }

    /// The keys of a backup (`GET /room_keys/keys` and its variants), encoded as the selection asks for them: all rooms, the
    /// sessions of one, or a single key.
    ///
    /// - Throws: `M_NOT_FOUND` if there is no such backup, or not the key that was asked for.
    public func get(
        _ selection: RoomKeySelection, version: String, for requester: Requester
    ) async throws -> [UInt8] {
        let backup = try await backup(version, of: requester)
        return try await database.read { reader in
            var writer = RoomKeyWriter(selection)
            try await self.database.eachRoomKey(selection, of: backup.version, requester.nid, reader) { writer.add($0) }
            return try writer.finish()
        }
    }
}

extension RoomKeyRank {
    /// Whether a key replaces another of the same session ("Server-side key backups"): verified before unverified, then the
    /// lower index, then the fewer forwards.
    func isBetter(than other: RoomKeyRank) -> Bool {
        if isVerified != other.isVerified { return isVerified }
        if firstMessageIndex != other.firstMessageIndex { return firstMessageIndex < other.firstMessageIndex }
        return forwardedCount < other.forwardedCount
    }
}

/// Writes the keys of a backup, which come ordered by rooms.
private struct RoomKeyWriter {
    private let selection: RoomKeySelection
    private var writer = JSONWriter(capacity: 4_096)
    private var room: String?
    private var isEmpty = true

    init(_ selection: RoomKeySelection) {
        self.selection = selection
        switch selection {
        case .all:
            writer.beginObject()
            writer.key("rooms")
            writer.beginObject()
        case .room:
            writer.beginObject()
            writer.key("sessions")
            writer.beginObject()
        case .session: break
        }
    }

    mutating func add(_ key: BackedUpKey) {
        isEmpty = false
        switch selection {
        case .all:
            if !(room?.hasSameBytes(as: key.roomID) ?? false) {
                endRoom()
                room = key.roomID
                writer.key(key.roomID)
                writer.beginObject()
                writer.key("sessions")
                writer.beginObject()
            }
            writer.key(key.sessionID)
        case .room: writer.key(key.sessionID)
        case .session: break
        }
        writer.beginObject()
        writer.key("first_message_index")
        writer.integer(key.rank.firstMessageIndex)
        writer.key("forwarded_count")
        writer.integer(key.rank.forwardedCount)
        writer.key("is_verified")
        writer.bool(key.rank.isVerified)
        writer.key("session_data")
        writer.raw(key.sessionData)
        writer.endObject()
    }

    private mutating func endRoom() {
        guard room != nil else { return }
        writer.endObject()
        writer.endObject()
    }

    mutating func finish() throws -> [UInt8] {
        switch selection {
        case .all:
            endRoom()
            writer.endObject()
            writer.endObject()
        case .room:
            writer.endObject()
            writer.endObject()
        case .session: if isEmpty { throw MatrixError.notFound("There is no key of this session in the backup.") }
        }
        return writer.bytes
    }
}
