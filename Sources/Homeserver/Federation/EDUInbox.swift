import Database
import Logging
import MatrixCore

/// What other servers tell and don't keep (Server-Server API, "EDUs"). A server speaks for its own users only (A23).
final class EDUInbox: Sendable {
    private let rooms: FederatedRooms
    private let typing: Typing
    private let presence: PresenceService
    private let toDevice: ToDeviceService
    private let remoteDevices: RemoteDevices
    private let logger: Logger
    private var database: Database { rooms.database }

    /// Users, rooms and receipts of one EDU that are looked at.
    private static let most = 1_000
    /// Threads of a room in which receipts of another server's user are kept.
    private static let mostThreads = 100

    init(
        rooms: FederatedRooms, typing: Typing, presence: PresenceService, toDevice: ToDeviceService,
        remoteDevices: RemoteDevices, logger: Logger
    ) {
        self.rooms = rooms
        self.typing = typing
        self.presence = presence
        self.toDevice = toDevice
        self.remoteDevices = remoteDevices
        self.logger = logger
    }

    /// Takes an EDU; one that is wrong keeps nothing else from being taken.
    func receive(_ edu: JSONView, from server: ServerName) async {
        guard let type = edu["edu_type"]?.string, let content = edu["content"], content.isObject else { return }
        do {
            switch type {
            case "m.typing": try await receiveTyping(content, from: server)
            case "m.receipt": try await receiveReceipts(content, from: server)
            case "m.presence": try await receivePresence(content, from: server)
            case "m.direct_to_device": try await toDevice.receive(content, from: server)
            case "m.device_list_update", "m.signing_key_update":
                guard let user = Self.user(content["user_id"], of: server) else { return }
                try await remoteDevices.changed(user)
            default: break
            }
        } catch {
            logger.debug(
                "an EDU was not taken", metadata: ["type": "\(type)", "from": "\(server)", "reason": "\(error)"])
        }
    }

    private static func user(_ value: JSONView?, of server: ServerName) -> UserID? {
        guard let user = value?.string.flatMap({ UserID($0) }), user.server == server else { return nil }
        return user
    }

    /// The room, if its access control list lets the server take part.
    private func room(_ value: String?, allowing server: ServerName) async throws -> Room? {
        guard let roomID = value.flatMap({ RoomID($0) }), let room = try await rooms.rooms.room(roomID),
            try await rooms.allows(server, in: room)
        else { return nil }
        return room
    }

    private func isJoined(_ user: UserID, _ room: Room) async throws -> Bool {
        guard let nid = try await database.existingNumber(ofUser: user) else { return false }
        return try await database.membership(of: nid, in: room.nid)?.membership == .join
    }

    private func receiveTyping(_ content: JSONView, from server: ServerName) async throws {
        guard let user = Self.user(content["user_id"], of: server), let isTyping = content["typing"]?.bool,
            let room = try await room(content["room_id"]?.string, allowing: server), try await isJoined(user, room)
        else { return }
        try await typing.set(user, in: room.nid, for: isTyping ? 30_000 : nil)
    }

    private func receiveReceipts(_ content: JSONView, from server: ServerName) async throws {
        var write = Write()
        var count = 0
        for (roomID, types) in content.members.prefix(Self.most) {
            guard let users = types["m.read"], users.isObject, let room = try await room(roomID, allowing: server)
            else {
                continue
            }
            for (name, receipt) in users.members {
                count += 1
                guard count <= Self.most else { break }
                guard let user = UserID(name), user.server == server, try await isJoined(user, room),
                    let event = receipt["event_ids"]?.elements.first(where: { _ in true })?.string.flatMap({
                        EventID($0)
                    })
                else { continue }
                let data = receipt["data"]
                let thread = data?["thread_id"]?.string ?? ""
                write.putReceipt(
                    in: room.nid, of: try await database.number(ofUser: user), type: "m.read",
                    thread: thread.utf8.count <= 255 ? thread : "", event: event,
                    at: data?["ts"]?.integer ?? rooms.context.surroundings.now(), threads: Self.mostThreads)
            }
        }
        if !write.isEmpty { try await database.write(write) }
    }

    private func receivePresence(_ content: JSONView, from server: ServerName) async throws {
        for entry in content["push"]?.elements.prefix(Self.most).map({ $0 }) ?? [] {
            guard let user = Self.user(entry["user_id"], of: server),
                let state = entry["presence"]?.string,
                let nid = try await database.existingNumber(ofUser: user)
            else { continue }
            try await presence.told(
                state, status: entry["status_msg"]?.string, of: nid,
                lastActiveAgo: entry["last_active_ago"]?.integer)
        }
    }
}
