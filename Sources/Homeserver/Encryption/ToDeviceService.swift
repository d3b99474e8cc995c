import Database
import MatrixCore
import Synchronization

/// Messages to devices (Client-Server API, "Send-to-Device messaging"): kept until the device has acknowledged them.
public final class ToDeviceService: Sendable {
    private let database: Database
    private let serverName: ServerName
    private let surroundings: Surroundings
    private let known: KnownDevices
    /// Messages that wait for one device at most, but for those that come between two looks; the oldest go first. A device
    /// that comes back after so long gets the keys of what was said last.
    private let mostWaiting: Int

    /// The largest content; the largest event has as much.
    private static let largestContent = 65_536
    private static let longestType = 255
    /// Devices that one request may send to.
    private static let mostRecipients = 10_000
    /// Messages and bytes of content that a client gets at a time: the specification recommends the first.
    private static let mostAtOnce = 100
    private static let mostBytesAtOnce = 2 << 20

    private struct Queue: Hashable {
        let user: UserNID
        let device: ByteString
    }

    /// Messages sent to a device since its queue was looked at. The lock protects the table; nothing is awaited while it is
    /// held.
    private let sent = Mutex(BoundedCache<Queue, Int>(capacity: 50_000))

    init(database: Database, serverName: ServerName, surroundings: Surroundings, mostWaiting: Int = 10_000) {
        self.database = database
        self.serverName = serverName
        self.surroundings = surroundings
        known = KnownDevices(database: database)
        self.mostWaiting = mostWaiting
    }

    /// Takes note of what a commit has changed.
    func note(_ topics: [Topic], at position: Int64) { known.note(topics, at: position) }

    // MARK: - Sending

    /// Sends a message to devices (`PUT /sendToDevice/{eventType}/{txnId}`). The same transaction again changes nothing.
    ///
    /// - Parameter messages: a map from user ID to a map from device ID, or `*` for all, to content. Devices that aren't there
    ///   get nothing.
    public func send(
        _ type: String, _ messages: JSONView, transactionID: String, by requester: Requester
    ) async throws {
        guard (1...Self.longestType).contains(type.utf8.count) else {
            throw MatrixError.invalidParam("The type of a message has 1 to \(Self.longestType) bytes.")
        }
        let asked = try Self.parse(messages)
        let key = Array(
            Hashing.sha256(Array("\(requester.deviceID)\0toDevice\0\(type)\0\(transactionID)".utf8)).prefix(16))
        let contents = try await resolve(asked)
        var write = Write()
        write.rememberTransaction(
            key, of: requester.nid, made: EventID(unchecked: ""), at: surroundings.now())
        if !contents.isEmpty {
            write.sendToDevices(contents, type: type, from: requester.nid)
            boundQueues(contents, in: &write)
        }
        try await sendToOthers(asked, type, from: requester.userID, in: &write)
        do { try await database.write(write) } catch DatabaseError.constraint {
            // The same request came before.
            guard try await database.event(ofTransaction: key, by: requester.nid) != nil else {
                throw MatrixError.stopping
            }
        }
    }

    /// Has messages for devices of other servers sent there (Server-Server API, "Send-to-device messaging").
    private func sendToOthers(
        _ asked: [Asked], _ type: String, from sender: UserID, in write: inout Write
    ) async throws {
        var messages: [ServerName: [UserID: JSONObject]] = [:]
        for one in asked where one.user.server != serverName {
            messages[one.user.server, default: [:]][one.user, default: [:]][one.deviceID] = .raw(one.content)
        }
        if messages.isEmpty { return }
        let position = write.takePosition()
        for (place, (server, users)) in messages.sorted(by: { $0.key < $1.key }).enumerated() {
            let devices = users.sorted { $0.key < $1.key }.map { ($0.key.string, JSON.object($0.value)) }
            let content: JSON = [
                "sender": .string(sender.string), "type": .string(type),
                "message_id": .string(surroundings.randomText(24)), "messages": .object(JSONObject(devices)),
            ]
            guard let canonical = try? content.canonical() else {
                throw MatrixError.badJSON("A message to a device of another server must be canonical JSON.")
            }
            write.sendToDevices(
                of: try await database.number(ofServer: server), position: position, place: Int64(place),
                content: canonical)
        }
    }

    /// Takes messages that another server's user sends to devices here. The same message again changes nothing.
    func receive(_ content: JSONView, from server: ServerName) async throws {
        guard let sender = content["sender"]?.string.flatMap({ UserID($0) }), sender.server == server,
            let type = content["type"]?.string, (1...Self.longestType).contains(type.utf8.count),
            let id = content["message_id"]?.string, (1...Self.longestType).contains(id.utf8.count),
            let messages = content["messages"], messages.isObject
        else { throw MatrixError.badJSON("This is no message to devices.") }
        let serverNID = try await database.number(ofServer: server)
        let contents = try await resolve(try Self.parse(messages))
        var write = Write()
        write.remember(toDeviceMessage: id, of: serverNID, at: surroundings.now())
        if !contents.isEmpty {
            write.sendToDevices(contents, type: type, from: try await database.number(ofUser: sender))
            boundQueues(contents, in: &write)
        }
        do { try await database.write(write) } catch DatabaseError.constraint {
            // It came before.
        }
    }

    private struct Asked {
        let user: UserID
        let deviceID: String
        let content: [UInt8]
    }

    private static func parse(_ messages: JSONView) throws -> [Asked] {
        var asked: [Asked] = []
        for (name, devices) in messages.members {
            guard let user = UserID(name) else { throw MatrixError.invalidParam("“\(name)” is not a user ID.") }
            guard devices.isObject else { throw MatrixError.badJSON("The messages to \(user) must be an object.") }
            for (deviceID, content) in devices.members {
                guard content.isObject else {
                    throw MatrixError.badJSON("The message to a device of \(user) must be an object.")
                }
                guard content.range.count <= largestContent else {
                    throw MatrixError.tooLarge("A message to a device may have \(largestContent) bytes.")
                }
                asked.append(Asked(user: user, deviceID: deviceID, content: [UInt8](content.raw)))
            }
        }
        guard asked.count <= mostRecipients else {
            throw MatrixError.invalidParam("A request may send to \(mostRecipients) devices.")
        }
        return asked
    }

    /// Finds out which devices there are, and puts together those that get the same.
    private func resolve(_ asked: [Asked]) async throws -> [ToDeviceContent] {
        let local = asked.filter { $0.user.server == serverName }
        let numbers = try await database.existingNumbers(ofUsers: local.map(\.user))
        // Who is named gets what is meant for it, and not also what all get: a device gets one message of a request.
        var named: [UserNID: Set<ByteString>] = [:]
        var wanted: [UserNID: Set<ByteString>?] = [:]
        for one in local where one.deviceID != "*" {
            if let nid = numbers[one.user] { named[nid, default: []].insert(ByteString(one.deviceID)) }
        }
        for (nid, devices) in named { wanted[nid] = devices }
        for one in local where one.deviceID == "*" {
            if let nid = numbers[one.user] { wanted.updateValue(nil, forKey: nid) }
        }
        let there = try await known.devices(of: wanted)
        var contents: [ToDeviceContent] = []
        var places: [Content: Int] = [:]
        for one in local {
            guard let nid = numbers[one.user], let devices = there[nid] else { continue }
            let chosen =
                one.deviceID == "*"
                ? devices.ids.filter { !(named[nid]?.contains(ByteString($0)) ?? false) }
                : devices.names.contains(ByteString(one.deviceID)) ? [one.deviceID] : []
            guard !chosen.isEmpty else { continue }
            let place = places[Content(bytes: one.content), default: contents.count]
            if place == contents.count {
                contents.append(ToDeviceContent(content: one.content, recipients: [:]))
                places[Content(bytes: one.content)] = place
            }
            contents[place].recipients[nid, default: []] += chosen
        }
        return contents
    }

    /// Bytes that are hashed all at once, unlike those of an array.
    private struct Content: Hashable {
        let bytes: [UInt8]

        func hash(into hasher: inout Hasher) { bytes.withUnsafeBytes { hasher.combine(bytes: $0) } }
    }

    /// Has queues looked at each time that a twentieth of what they may hold was sent to them.
    private func boundQueues(_ contents: [ToDeviceContent], in write: inout Write) {
        for content in contents {
            for (user, devices) in content.recipients.sorted(by: { $0.key < $1.key }) {
                let queue = Queue(user: user, device: ByteString(devices.count == 1 ? devices[0] : ""))
                let isDue = sent.withLock { sent in
                    let count = (sent[queue] ?? 0) + 1
                    let isDue = count >= max(mostWaiting / 20, 1)
                    sent.insert(isDue ? 0 : count, for: queue, size: 1)
                    return isDue
                }
                if isDue { write.dropOldMessages(toDevice: queue.device.string, of: user, beyond: mostWaiting) }
            }
        }
    }

    // MARK: - Receiving

    /// What a device is told at a time.
    public struct Page: Sendable {
        /// Events as clients see them, oldest first.
        public var events: [JSON] = []
        /// The position of the last of them, if there are more.
        public var rest: Int64?
    }

    /// The messages for a device between two positions: a hundred at most.
    public func messages(
        to deviceID: String, of user: UserNID, after: Int64, upTo: Int64
    ) async throws -> Page {
        let messages = try await database.read { reader in
            try await self.database.messages(
                toDevice: deviceID, of: user, after: after, upTo: upTo, limit: Self.mostAtOnce + 1, reader)
        }
        var page = Page()
        var bytes = 0
        var last: Int64 = 0
        let senders = try await database.users(messages.map(\.sender))
        for message in messages {
            bytes += message.content.count
            if page.events.count == Self.mostAtOnce || (bytes > Self.mostBytesAtOnce && !page.events.isEmpty) {
                page.rest = last
                break
            }
            last = message.position
            // One that can't be shown must not keep the others back.
            guard let sender = senders[message.sender], message.content.first == UInt8(ascii: "{") else { continue }
            page.events.append([
                "type": .string(message.type), "sender": .string(sender.string), "content": .raw(message.content),
            ])
        }
        return page
    }

    /// Whether anything may wait for a device.
    func hasMessages(_ requester: Requester, _ reader: any Reader) async throws -> Bool {
        try await database.hasMessages(toDevice: requester.deviceID, of: requester.nid, reader)
    }

    /// Lets go of what a device has received: it has come back with the token that was given with it.
    public func acknowledge(_ deviceID: String, of user: UserNID, upTo position: Int64) async throws {
        let write = try await database.acknowledgement(by: deviceID, of: user, upTo: position)
        if !write.isEmpty { try await database.write(write) }
    }
}
