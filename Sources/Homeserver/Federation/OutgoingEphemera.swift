import Database
import MatrixCore
import Synchronization

/// What passes here and other servers hear of: typing, receipts, presence (Server-Server API, "Typing", "Receipts", "Presence").
/// Made before there is anybody to tell.
final class OutgoingEphemera: Sendable {
    private struct Connection {
        let rooms: FederatedRooms
        let sender: FederationSender
    }

    /// The lock protects the reference.
    private let connection = Mutex<Connection?>(nil)

    /// Users told of in one EDU.
    private static let mostPushed = 100

    func connect(_ rooms: FederatedRooms, _ sender: FederationSender) {
        connection.withLock { $0 = Connection(rooms: rooms, sender: sender) }
    }

    /// Whether what is told here reaches anybody: another node may be the one that tells.
    var isTelling: Bool { connection.withLock { $0 }?.sender.isTelling ?? false }

    private func tell(_ room: Room, _ edu: @autoclosure () -> EDU) async throws {
        guard let connection = connection.withLock({ $0 }) else { return }
        let servers = try await connection.rooms.servers(in: room)
        if !servers.isEmpty { connection.sender.send(edu(), to: servers) }
    }

    func tellTyping(_ isTyping: Bool, in room: Room, by user: UserID) async throws {
        try await tell(
            room,
            EDU(
                "m.typing",
                [
                    "room_id": .string(room.roomID.string), "user_id": .string(user.string),
                    "typing": .bool(isTyping),
                ], replacing: "\(room.roomID)\0\(user)"))
    }

    /// - Parameter time: when the receipt was sent, in milliseconds since 1970.
    func tellReceipt(
        on event: EventID, thread: String?, at time: Int64, in room: Room, by user: UserID
    ) async throws {
        var data: JSONObject = ["ts": .integer(time)]
        if let thread { data["thread_id"] = .string(thread) }
        let receipt: JSON = ["event_ids": [.string(event.string)], "data": .object(data)]
        let content: JSON = [room.roomID.string: ["m.read": [user.string: receipt]]]
        try await tell(
            room, EDU("m.receipt", content, replacing: "\(room.roomID)\0\(user)\0\(thread ?? "")"))
    }

    /// - Parameter content: a user's presence, as clients see it.
    func tellPresence(of users: [UserNID], _ content: (UserNID) async throws -> JSONObject) async throws {
        guard let connection = connection.withLock({ $0 }) else { return }
        let database = connection.rooms.database
        let names = try await database.users(users)
        for user in users.prefix(Self.mostPushed) {
            guard let name = names[user], name.server == connection.rooms.context.serverName else { continue }
            let servers = try await database.read { try await database.servers(sharingRoomsWith: user, $0) }
                .filter { $0 != connection.rooms.ownServer }
            if servers.isEmpty { continue }
            var entry = try await content(user)
            entry["user_id"] = .string(name.string)
            connection.sender.send(
                EDU("m.presence", ["push": [.object(entry)]], replacing: name.string),
                to: Array(try await database.servers(servers).values))
        }
    }
}
