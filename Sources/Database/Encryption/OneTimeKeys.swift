import MatrixCore

/// A public key for one use, or for when those have run out (Client-Server API, "One-time and fallback keys").
public struct PublicKey: Sendable {
    public let algorithm: String
    public let keyID: String
    /// The key itself: a string, or an object with signatures.
    public let json: [UInt8]
    /// Of the public key, whatever its name and signatures: 16 bytes.
    public let hash: [UInt8]

    static let hashSize = 16

    public init(algorithm: String, keyID: String, json: [UInt8], publicKey: String) {
        self.algorithm = algorithm
        self.keyID = keyID
        self.json = json
        hash = Array(Hashing.sha256(Array(publicKey.utf8)).prefix(Self.hashSize))
    }
}

/// A hash of a key that is hashed again quickly.
private struct KeyHash: Hashable {
    private let words: SIMD2<UInt64>

    init(_ bytes: ArraySlice<UInt8>) {
        words = bytes.withUnsafeBytes { $0.loadUnaligned(as: SIMD2<UInt64>.self) }
    }
}

/// The one-time keys of a device: those that wait, and those that were handed out last.
///
/// A client uploads many keys at once, and they are claimed one by one. So a few of an upload are one row, if their IDs have one
/// length and they themselves one, which they do with every client of today: a claim counts up how many of the row's keys were handed
/// out, and cuts the next one out of it. A row that is used up goes with the next upload, which puts its keys' hashes with those of
/// the ones before.
public struct OneTimeKeyPool: Sendable {
    /// What a row tells without the keys themselves.
    struct Part: Sendable {
        let algorithm: String
        let position: Int64
        let part: Int64
        let size: Int
        let taken: Int
        /// ID and hash of each key.
        let names: [UInt8]

        /// Where all hashes of keys that were handed out are put together: their algorithm doesn't matter any more, nor their IDs.
        var isMemory: Bool { algorithm.isEmpty && position == 0 }

        func id(_ index: Int) -> ArraySlice<UInt8> { name(index).dropLast(PublicKey.hashSize) }
        func hash(_ index: Int) -> ArraySlice<UInt8> { name(index).suffix(PublicKey.hashSize) }

        private func name(_ index: Int) -> ArraySlice<UInt8> {
            let length = names.count / size
            return names[index * length..<(index + 1) * length]
        }
    }

    /// Oldest first.
    let parts: [Part]

    public static let empty = OneTimeKeyPool(parts: [])

    /// The newest position, 0 if there is nothing.
    var last: Int64 { parts.last?.position ?? 0 }

    /// How many rows it takes.
    public var rowCount: Int { parts.count }

    /// How many there are of each algorithm that nobody has claimed.
    public var unclaimed: [String: Int] {
        parts.reduce(into: [:]) { if $1.taken < $1.size { $0[$1.algorithm, default: 0] += $1.size - $1.taken } }
    }

    /// Hashes of the keys that were handed out, the last ones last.
    var claimedHashes: [ArraySlice<UInt8>] { parts.flatMap { part in (0..<part.taken).map { part.hash($0) } } }
}

/// A key of a device that somebody asks for.
public struct KeyClaim: Sendable {
    public let user: UserNID
    public let deviceID: String
    public let algorithm: String

    public init(user: UserNID, deviceID: String, algorithm: String) {
        self.user = user
        self.deviceID = deviceID
        self.algorithm = algorithm
    }

    fileprivate var values: [SQLValue] { [user.value, .text(deviceID), .text(algorithm)] }
}

/// A key that was handed out.
public struct ClaimedKey: Sendable {
    public let keyID: String
    public let json: [UInt8]

    /// - Parameter row: of ``Write/takeOneTimeKeys(_:)`` or ``Write/useFallbackKeys(_:)``. An engine may keep text as bytes.
    public init?(row: [SQLValue]) {
        guard row.count == 2, case .blob(let json) = row[1] else { return nil }
        self.json = json
        switch row[0] {
        case .text(let id): keyID = id
        case .blob(let id): keyID = String(decoding: id, as: UTF8.self)
        default: return nil
        }
    }
}

extension Database {
    private static let ofDevice = Statement(
        """
        SELECT algorithm, position, part, size, taken, names FROM one_time_key_pools WHERE user_nid = $1 AND device_id = $2
        ORDER BY position, part
        """)

    public func oneTimeKeys(
        of user: UserNID, _ deviceID: String, _ reader: any Reader
    ) async throws -> OneTimeKeyPool {
        let parts = try await reader.query(Self.ofDevice, [user.value, .text(deviceID)]) { row in
            OneTimeKeyPool.Part(
                algorithm: row.text(0), position: row.integer(1), part: row.integer(2), size: Int(row.integer(3)),
                taken: Int(row.integer(4)), names: row.blob(5))
        }
        for part in parts {
            guard part.size > 0, (0...part.size).contains(part.taken), part.names.count.isMultiple(of: part.size),
                part.names.count / part.size >= PublicKey.hashSize
            else { throw DatabaseError.corrupt("a pool of one-time keys of user \(user.rawValue) makes no sense") }
        }
        return OneTimeKeyPool(parts: parts)
    }

    private static let key = Statement(
        """
        SELECT substr(keys, CAST($6 * (length(keys) / size) + 1 AS integer), CAST(length(keys) / size AS integer))
        FROM one_time_key_pools
        WHERE user_nid = $1 AND device_id = $2 AND algorithm = $3 AND position = $4 AND part = $5
        """)

    /// Which of the keys that a device uploads are new to its pool. One that was handed out isn't: a client repeats an upload whose answer
    /// it has not got, and meanwhile somebody may have claimed.
    ///
    /// - Returns: the new ones, and one that nobody has claimed whose name is that of one of the keys, but not the key itself.
    public func sort(
        _ keys: [PublicKey], by pool: OneTimeKeyPool, of user: UserNID, _ deviceID: String, _ reader: any Reader
    ) async throws -> (new: [PublicKey], different: PublicKey?) {
        if keys.isEmpty { return ([], nil) }
        let claimed = Set(pool.claimedHashes.map { KeyHash($0) })
        var places: [ByteString: Int] = [:]
        for (index, key) in keys.enumerated() { places[ByteString("\(key.algorithm):\(key.keyID)")] = index }
        var named: Set<Int> = []
        var asked: [(key: PublicKey, values: [SQLValue])] = []
        for part in pool.parts {
            for index in part.taken..<part.size {
                let name = "\(part.algorithm):\(String(decoding: part.id(index), as: UTF8.self))"
                guard let place = places[ByteString(name)] else { continue }
                named.insert(place)
                let values: [SQLValue] = [
                    user.value, .text(deviceID), .text(part.algorithm), .integer(part.position), .integer(part.part),
                    .integer(Int64(index)),
                ]
                asked.append((keys[place], values))
            }
        }
        let same = try await reader.queryEach(Self.key, asked.map(\.values)) { index, row in
            row.blob(0) == asked[index].key.json
        }
        let new = keys.enumerated().filter {
            !named.contains($0.offset) && !claimed.contains(KeyHash($0.element.hash[...]))
        }
        return (new.map(\.element), same.firstIndex(of: false).map { asked[$0].key })
    }

    private static let countKeys = Statement(
        """
        SELECT algorithm, CAST(sum(size - taken) AS bigint) FROM one_time_key_pools
        WHERE user_nid = $1 AND device_id = $2 AND taken < size GROUP BY algorithm
        """)
    private static let unusedFallback = Statement(
        """
        SELECT algorithm FROM fallback_keys WHERE user_nid = $1 AND device_id = $2 AND used = 0 ORDER BY algorithm
        """)

    public func keyCounts(
        of user: UserNID, _ deviceID: String, _ reader: any Reader
    ) async throws -> DeviceKeyCounts {
        let values: [SQLValue] = [user.value, .text(deviceID)]
        let counts = try await reader.query(Self.countKeys, values) { ($0.text(0), Int($0.integer(1))) }
        return DeviceKeyCounts(
            // Names that differ in bytes alone are one to a dictionary of Swift's.
            oneTime: Dictionary(counts, uniquingKeysWith: +),
            unusedFallback: try await reader.query(Self.unusedFallback, values) { $0.text(0) })
    }
}

extension Write {
    private static let addFirstPart = Statement(
        """
        INSERT INTO one_time_key_pools (user_nid, device_id, algorithm, position, part, size, taken, names, keys)
        SELECT $1, $2, $3, $4, $5, $6, 0, $7, $8
        WHERE EXISTS (SELECT 1 FROM devices WHERE user_nid = $1 AND device_id = $2)
        AND NOT EXISTS (SELECT 1 FROM one_time_key_pools WHERE user_nid = $1 AND device_id = $2 AND position > $9)
        """)
    private static let addPart = Statement(
        """
        INSERT INTO one_time_key_pools (user_nid, device_id, algorithm, position, part, size, taken, names, keys)
        VALUES ($1, $2, $3, $4, $5, $6, 0, $7, $8)
        """, isIndependent: true)
    private static let dropPart = Statement(
        """
        DELETE FROM one_time_key_pools
        WHERE user_nid = $1 AND device_id = $2 AND algorithm = $3 AND position = $4 AND part = $5
        """, isIndependent: true)
    private static let addMemory = Statement(
        """
        INSERT INTO one_time_key_pools (user_nid, device_id, algorithm, position, part, size, taken, names, keys)
        VALUES ($1, $2, $3, 0, 0, $4, $4, $5, $6)
        """)

    /// Bytes of a row's names and keys: a row that is changed is written as a whole, and larger ones would stand beside SQLite's pages.
    private static let largestPart = 900

    /// Adds one-time keys; fails as a conflict if the device is gone, or if others have come since its pool was read.
    ///
    /// - Parameters:
    ///   - pool: of the device, in which the keys are not.
    ///   - remembering: how many keys that were handed out stay known.
    public mutating func addOneTimeKeys(
        _ keys: [PublicKey], to pool: OneTimeKeyPool = .empty, of user: UserNID, _ deviceID: String,
        remembering: Int = 0
    ) {
        struct Shape: Hashable {
            let algorithm: ByteString
            let id: Int
            let json: Int
        }
        let position = takePosition()
        var shapes: [Shape] = []
        var alike: [Shape: [PublicKey]] = [:]
        for key in keys {
            let shape = Shape(
                algorithm: ByteString(key.algorithm), id: key.keyID.utf8.count, json: key.json.count)
            if alike[shape] == nil { shapes.append(shape) }
            alike[shape, default: []].append(key)
        }
        let parts = shapes.flatMap { shape -> [ArraySlice<PublicKey>] in
            let keys = alike[shape] ?? []
            let count = max(Self.largestPart / (shape.id + PublicKey.hashSize + shape.json), 1)
            return stride(from: 0, to: keys.count, by: count).map { keys[$0..<min($0 + count, keys.count)] }
        }
        for (place, part) in parts.enumerated() {
            let values: [SQLValue] = [
                user.value, .text(deviceID), .text(part[part.startIndex].algorithm), position,
                .integer(Int64(place)), .integer(Int64(part.count)),
                .blob(part.flatMap { Array($0.keyID.utf8) + $0.hash }), .blob(part.flatMap(\.json)),
            ]
            if place == 0 {
                expect(
                    1, otherwise: "the device is gone, or other keys of it have come", Self.addFirstPart,
                    values + [.integer(pool.last)])
            } else {
                run(Self.addPart, values)
            }
        }
        let spent = pool.parts.filter { $0.taken == $0.size }
        if spent.contains(where: { !$0.isMemory }) { merge(spent, of: user, deviceID, remembering: remembering) }
    }

    /// Puts the hashes of what is used up together.
    private mutating func merge(
        _ spent: [OneTimeKeyPool.Part], of user: UserNID, _ deviceID: String, remembering: Int
    ) {
        for part in spent {
            run(
                Self.dropPart, user.value, .text(deviceID), .text(part.algorithm), .integer(part.position),
                .integer(part.part))
        }
        let hashes = OneTimeKeyPool(parts: spent).claimedHashes.suffix(remembering)
        if hashes.isEmpty { return }
        run(
            Self.addMemory, user.value, .text(deviceID), .text(""), .integer(Int64(hashes.count)),
            .blob(Array(hashes.joined())), .blob([]))
    }

    private static let putFallback = Statement(
        """
        INSERT INTO fallback_keys (user_nid, device_id, algorithm, key_id, json)
        SELECT $1, $2, $3, $4, $5 WHERE EXISTS (SELECT 1 FROM devices WHERE user_nid = $1 AND device_id = $2)
        ON CONFLICT (user_nid, device_id, algorithm) DO UPDATE SET key_id = excluded.key_id, json = excluded.json,
            used = CASE WHEN fallback_keys.json = excluded.json THEN fallback_keys.used ELSE 0 END
        """)

    /// Sets a device's fallback keys, each instead of the one of its algorithm.
    public mutating func putFallbackKeys(_ keys: [PublicKey], of user: UserNID, _ deviceID: String) {
        for key in keys {
            run(
                Self.putFallback, user.value, .text(deviceID), .text(key.algorithm), .text(key.keyID), .blob(key.json))
        }
    }

    private static let takeKey = Statement(
        """
        UPDATE one_time_key_pools SET taken = taken + 1
        WHERE user_nid = $1 AND device_id = $2 AND algorithm = $3 AND (position, part) = (
            SELECT position, part FROM one_time_key_pools
            WHERE user_nid = $1 AND device_id = $2 AND algorithm = $3 AND taken < size ORDER BY position, part LIMIT 1)
        RETURNING
            substr(names, CAST((taken - 1) * (length(names) / size) + 1 AS integer),
                CAST(length(names) / size - \(PublicKey.hashSize) AS integer)),
            substr(keys, CAST((taken - 1) * (length(keys) / size) + 1 AS integer), CAST(length(keys) / size AS integer))
        """, isIndependent: true)
    private static let useFallback = Statement(
        """
        UPDATE fallback_keys SET used = 1 WHERE user_nid = $1 AND device_id = $2 AND algorithm = $3 RETURNING key_id, json
        """, isIndependent: true)

    /// Takes the oldest one-time key of each device.
    ///
    /// Writes that take a position are carried out one after another on every engine, so each sees what the ones before have
    /// taken; and even without that a row is changed by one after another.
    ///
    /// - Parameter claims: of each device one for an algorithm.
    /// - Returns: the places of the rows among ``WriteResult/rows``, which ``ClaimedKey`` reads.
    public mutating func takeOneTimeKeys(_ claims: [KeyClaim]) -> [Int] {
        _ = takePosition()
        return claims.map { returning(Self.takeKey, $0.values) }
    }

    /// Marks the fallback key of each device as used.
    ///
    /// - Returns: the places of the rows, as ``takeOneTimeKeys(_:)`` does.
    public mutating func useFallbackKeys(_ claims: [KeyClaim]) -> [Int] {
        claims.map { returning(Self.useFallback, $0.values) }
    }

    private static let dropUnclaimed = Statement("UPDATE one_time_key_pools SET taken = size")
    private static let outdateFallback = Statement("UPDATE fallback_keys SET used = 1")

    /// Drops all unclaimed one-time keys: in a restored database some of them have been handed out since the backup. Clients
    /// see that they have none left and make new ones; fallback keys serve meanwhile, and are asked to be replaced.
    public mutating func dropUnclaimedKeys() {
        run(Self.dropUnclaimed)
        run(Self.outdateFallback)
    }
}
