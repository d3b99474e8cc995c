/// A message that waits for a device.
public struct ToDeviceMessage: Sendable {
    public let position: Int64
    public let sender: UserNID
    public let type: String
    /// A JSON object.
    public let content: [UInt8]
}

/// One content, and the devices it goes to.
public struct ToDeviceContent: Sendable {
    public let content: [UInt8]
    public var recipients: [UserNID: [String]]

    public init(content: [UInt8], recipients: [UserNID: [String]]) {
        self.content = content
        self.recipients = recipients
    }
}

/// Lists of texts in a column, each with its length before it.
enum PackedTexts {
    static func pack(_ texts: [String]) -> [UInt8] {
        var bytes: [UInt8] = []
        for text in texts {
            Varint.append(UInt64(text.utf8.count), to: &bytes)
            bytes += text.utf8
        }
        return bytes
    }

    static func unpack(_ bytes: [UInt8]) throws(DatabaseError) -> [String] {
        var texts: [String] = []
        var index = 0
        while index < bytes.count {
            guard let count = Varint.read(bytes, &index), count <= UInt64(bytes.count - index) else {
                throw .corrupt("a packed list of texts is cut short")
            }
            texts.append(String(decoding: bytes[index..<index + Int(count)], as: UTF8.self))
            index += Int(count)
        }
        return texts
    }

    static func contains(_ bytes: [UInt8], _ text: String) throws(DatabaseError) -> Bool {
        try unpack(bytes).contains { $0.hasSameBytes(as: text) }
    }
}

extension Database {
    private static let page = Statement(
        """
        SELECT t.position, t.place, t.sender_nid, t.type, t.devices, coalesce(t.content, (SELECT b.content
            FROM to_device_bodies b WHERE b.position = t.position AND b.place = t.place))
        FROM to_device t
        WHERE t.user_nid = $1 AND t.device_id = $2 AND (t.position, t.place) > ($3, $4) AND t.position <= $5
        ORDER BY t.position, t.place LIMIT $6
        """)
    private static let cursor = Statement(
        "SELECT position FROM to_device_cursors WHERE user_nid = $1 AND device_id = $2")

    /// The messages for a device between two positions, oldest first, `limit` at most. Ranges of one index.
    public func messages(
        toDevice deviceID: String, of user: UserNID, after: Int64, upTo: Int64, limit: Int, _ reader: any Reader
    ) async throws -> [ToDeviceMessage] {
        struct Found {
            let place: Int64
            let devices: [UInt8]
            let message: ToDeviceMessage
        }
        func read(_ column: String, behind position: Int64, _ place: Int64) async throws -> [Found] {
            try await reader.query(
                Self.page,
                [
                    user.value, .text(column), .integer(position), .integer(place), .integer(upTo),
                    .integer(Int64(limit)),
                ]
            ) { row in
                Found(
                    place: row.integer(1), devices: row.blob(4),
                    message: ToDeviceMessage(
                        position: row.integer(0), sender: UserNID(row.integer(2)), type: row.text(3),
                        content: row.blob(5)))
            }
        }
        var messages = try await read(deviceID, behind: after, .max).map(\.message)
        // What goes to several devices of the user. It may be others, so there may be more to look at than to take.
        let cursor = try await reader.first(Self.cursor, [user.value, .text(deviceID)]) { $0.integer(0) } ?? 0
        var (position, place) = (max(after, cursor), Int64.max)
        var taken = 0
        while taken < limit {
            let page = try await read("", behind: position, place)
            for found in page where try PackedTexts.contains(found.devices, deviceID) {
                messages.append(found.message)
                taken += 1
            }
            guard page.count == limit, let last = page.last else { break }
            (position, place) = (last.message.position, last.place)
        }
        return Array(messages.sorted { $0.position < $1.position }.prefix(limit))
    }

    private static let anything = Statement(
        "SELECT 1 FROM to_device WHERE user_nid = $1 AND device_id = $2 LIMIT 1")

    /// Whether anything may wait for a device.
    public func hasMessages(
        toDevice deviceID: String, of user: UserNID, _ reader: any Reader
    ) async throws -> Bool {
        try await !reader.queryEach(Self.anything, [deviceID, ""].map { [user.value, .text($0)] }) { _, _ in true }
            .isEmpty
    }

    private static let ownUpTo = Statement(
        "SELECT 1 FROM to_device WHERE user_nid = $1 AND device_id = $2 AND position <= $3 LIMIT 1")
    private static let shared = Statement(
        """
        SELECT position, place, devices FROM to_device
        WHERE user_nid = $1 AND device_id = '' AND position > $2 AND position <= $3 ORDER BY position, place LIMIT $4
        """)
    private static let cursors = Statement("SELECT device_id, position FROM to_device_cursors WHERE user_nid = $1")
    private static let deviceIDs = Statement("SELECT device_id FROM devices WHERE user_nid = $1")

    /// A row that several devices of a user have in common.
    private struct SharedRow {
        let position: Int64
        let place: Int64
        let devices: [[UInt8]]
    }

    /// Rows of several devices that one acknowledgement looks at; the next goes on behind them.
    private static let mostShared = 2_000
    /// Of the oldest rows, those that are looked at again each time: a device that had them to itself may have ended.
    private static let oldest = 50

    /// A write that lets go of what a device has acknowledged; empty if there is nothing. What goes to several devices
    /// goes when the last of them has it.
    public func acknowledgement(
        by deviceID: String, of user: UserNID, upTo: Int64
    ) async throws -> Write {
        try await read { reader in
            var write = Write()
            if try await reader.first(Self.ownUpTo, [user.value, .text(deviceID), .integer(upTo)], { _ in true })
                == true
            {
                write.deleteMessages(toDevice: deviceID, of: user, upTo: upTo)
            }
            func shared(behind: Int64, limit: Int) async throws -> [SharedRow] {
                try await reader.query(
                    Self.shared, [user.value, .integer(behind), .integer(upTo), .integer(Int64(limit))]
                ) {
                    SharedRow(
                        position: $0.integer(0), place: $0.integer(1),
                        devices: try PackedTexts.unpack($0.blob(2)).map { Array($0.utf8) })
                }
            }
            let old = try await shared(behind: 0, limit: Self.oldest)
            if old.isEmpty { return write }
            let stored = try await reader.query(Self.cursors, [user.value]) { (Array($0.text(0).utf8), $0.integer(1)) }
            let there = Set(try await reader.query(Self.deviceIDs, [user.value]) { Array($0.text(0).utf8) })
            var cursors = Dictionary(uniqueKeysWithValues: stored)
            let name = Array(deviceID.utf8)
            let news = try await shared(behind: cursors[name] ?? 0, limit: Self.mostShared)
            let isCut = news.count == Self.mostShared
            if isCut || news.contains(where: { $0.devices.contains(name) }) {
                let reached = isCut ? news[news.count - 1].position - 1 : upTo
                write.moveCursor(of: deviceID, of: user, to: .integer(reached))
                cursors[name] = max(reached, cursors[name] ?? 0)
            }
            var looked: Set<[Int64]> = []
            for row in old + news where looked.insert([row.position, row.place]).inserted {
                let isDone = row.devices.allSatisfy { !there.contains($0) || cursors[$0] ?? 0 >= row.position }
                if isDone { write.deleteShared(of: user, position: row.position, place: row.place) }
            }
            if !write.isEmpty { write.deleteUnneededCursors(of: user) }
            return write
        }
    }
}

extension Write {
    private static let insert = Statement(
        """
        INSERT INTO to_device (user_nid, device_id, position, place, sender_nid, type, devices, content)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
        """, isIndependent: true)
    private static let insertBody = Statement(
        "INSERT INTO to_device_bodies (position, place, content) VALUES ($1, $2, $3)", isIndependent: true)

    /// Adds messages of one sender at one position. Content that goes to several users is stored once, and so is what goes to
    /// several devices of one.
    public mutating func sendToDevices(_ contents: [ToDeviceContent], type: String, from sender: UserNID) {
        let position = takePosition()
        for (place, content) in contents.enumerated() {
            let isShared = content.recipients.count > 1
            if isShared { run(Self.insertBody, position, .integer(Int64(place)), .blob(content.content)) }
            for (user, devices) in content.recipients.sorted(by: { $0.key < $1.key }) {
                run(
                    Self.insert, user.value, .text(devices.count == 1 ? devices[0] : ""), position,
                    .integer(Int64(place)), sender.value, .text(type),
                    .blob(devices.count == 1 ? [] : PackedTexts.pack(devices)),
                    isShared ? .null : .blob(content.content))
                topics.append(.user(user))
            }
        }
    }

    private static let deleteOld = Statement(
        """
        DELETE FROM to_device WHERE user_nid = $1 AND device_id = $2 AND position < (SELECT position FROM to_device
        WHERE user_nid = $1 AND device_id = $2 ORDER BY position DESC LIMIT 1 OFFSET $3)
        """)

    /// Drops the oldest of the messages that wait for a device (or, with an empty ID, for several of a user's) beyond so many.
    public mutating func dropOldMessages(toDevice deviceID: String, of user: UserNID, beyond count: Int) {
        run(Self.deleteOld, user.value, .text(deviceID), .integer(Int64(count) - 1))
        deleteOrphanedBodies()
    }

    /// The bodies that nobody but the device waits for.
    private static let ownBodies = Statement(
        """
        DELETE FROM to_device_bodies WHERE (position, place) IN (SELECT t.position, t.place FROM to_device t
            WHERE t.user_nid = $1 AND t.device_id = $2 AND t.position <= $3 AND t.content IS NULL)
        AND NOT EXISTS (SELECT 1 FROM to_device other WHERE other.position = to_device_bodies.position
            AND other.place = to_device_bodies.place AND other.content IS NULL
            AND (other.user_nid <> $1 OR other.device_id <> $2))
        """)
    private static let orphanedBody = Statement(
        """
        DELETE FROM to_device_bodies WHERE position = $1 AND place = $2 AND NOT EXISTS (SELECT 1 FROM to_device t
        WHERE t.position = $1 AND t.place = $2 AND t.content IS NULL)
        """)
    private static let deleteOwn = Statement(
        "DELETE FROM to_device WHERE user_nid = $1 AND device_id = $2 AND position <= $3")
    private static let deleteShared = Statement(
        "DELETE FROM to_device WHERE user_nid = $1 AND device_id = '' AND position = $2 AND place = $3")
    private static let orphans = Statement(
        """
        DELETE FROM to_device_bodies WHERE NOT EXISTS (SELECT 1 FROM to_device t
        WHERE t.position = to_device_bodies.position AND t.place = to_device_bodies.place AND t.content IS NULL)
        """)
    private static let moveCursor = Statement(
        """
        INSERT INTO to_device_cursors (user_nid, device_id, position)
        SELECT $1, $2, $3 WHERE EXISTS (SELECT 1 FROM to_device WHERE user_nid = $1 AND device_id = '')
        ON CONFLICT (user_nid, device_id) DO UPDATE SET position = CASE
            WHEN excluded.position > to_device_cursors.position THEN excluded.position
            ELSE to_device_cursors.position END
        """)
    private static let dropCursors = Statement(
        """
        DELETE FROM to_device_cursors WHERE user_nid = $1 AND NOT EXISTS (SELECT 1 FROM to_device t
        WHERE t.user_nid = $1 AND t.device_id = '' AND t.position <= to_device_cursors.position)
        """)

    /// Deletes what waits for a device alone. Writes that let go of content take a position, so that they are carried out one
    /// after another: side by side, each might see what the other is about to let go of.
    fileprivate mutating func deleteMessages(toDevice deviceID: String, of user: UserNID, upTo: Int64) {
        _ = takePosition()
        run(Self.ownBodies, user.value, .text(deviceID), .integer(upTo))
        run(Self.deleteOwn, user.value, .text(deviceID), .integer(upTo))
    }

    fileprivate mutating func deleteShared(of user: UserNID, position: Int64, place: Int64) {
        if positions == 0 { _ = takePosition() }
        run(Self.deleteShared, user.value, .integer(position), .integer(place))
        run(Self.orphanedBody, .integer(position), .integer(place))
    }

    fileprivate mutating func moveCursor(of deviceID: String, of user: UserNID, to position: SQLValue) {
        run(Self.moveCursor, user.value, .text(deviceID), position)
    }

    fileprivate mutating func deleteUnneededCursors(of user: UserNID) { run(Self.dropCursors, user.value) }

    /// Deletes all content that nobody waits for any more.
    mutating func deleteOrphanedBodies() {
        _ = takePosition()
        run(Self.orphans)
    }

    /// Deletes what waits for a device that ends. Its cursor moves to the end, so that another device of the same name doesn't
    /// get what was meant for this one.
    mutating func deleteMessages(toDevice deviceID: String, of user: UserNID) {
        let position = takePosition()
        deleteMessages(toDevice: deviceID, of: user, upTo: .max)
        moveCursor(of: deviceID, of: user, to: position)
    }
}
