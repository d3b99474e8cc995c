import MatrixCore
import RoostTestSupport

@testable import Homeserver

/// What people do.
extension SyncWorld {
    mutating func chance(_ of: Int) -> Bool { Int.random(in: 0..<of, using: &generator) == 0 }

    /// Starts the server anew upon what it has kept. Nobody is typing then.
    mutating func restart() async throws {
        await server.close()
        server = try await TestServer(directory: server.directory, clock: server.clock)
        typing = [:]
    }

    mutating func act() async throws {
        if rooms.count < 2 || rooms.count < 5 && chance(15) { return try await createRoom() }
        let room = rooms.randomElement(using: &generator)!
        let user = Int.random(in: users.indices, using: &generator)
        do {
            if chance(2) { try await talk(user, in: room) } else { try await change(user, in: room) }
        } catch is MatrixError {
            // Not everything that is tried is allowed.
        }
        // Who goes types no more.
        if typing[room.string]?.isEmpty == false {
            let state = Self.state(after: try await log(room))
            typing[room.string] = typing[room.string]?.filter {
                Self.membership(UserID(unchecked: $0), state) == "join"
            }
        }
    }

    private mutating func createRoom() async throws {
        let maker = users.randomElement(using: &generator)!
        let visibility = ["world_readable", "shared", "invited", "joined"].randomElement(using: &generator)!
        let version = ["6", "10", "11", "12"].randomElement(using: &generator)!
        let type: JSONObject = chance(3) ? ["type": "m.space"] : [:]
        rooms.append(
            try await server.room(of: maker, version: version) { request in
                request.creationContent = type
                request.initialState = [
                    .init(key: .historyVisibility, content: ["history_visibility": .string(visibility)])
                ]
                request.powerLevels = ["state_default": 0, "kick": 0, "ban": 0, "invite": 0, "redact": 0]
            })
    }

    private mutating func transaction() -> String { "t\(UInt64.random(in: 0...UInt64.max, using: &generator))" }

    // MARK: - Messages, and what goes with them

    private mutating func talk(_ index: Int, in room: RoomID) async throws {
        let user = users[index]
        let sending = server.homeserver.sending
        switch Int.random(in: 0..<18, using: &generator) {
        case 0..<6: try await server.say("\(Int.random(in: 0..<1_000, using: &generator))", in: room, by: user)
        case 6, 7:
            guard let root = try await log(room).randomElement(using: &generator) else { return }
            let relation: JSON = ["rel_type": "m.thread", "event_id": .string(root.event.eventID.string)]
            _ = try await sending.send(
                "m.room.message", content: ["msgtype": "m.text", "body": "reply", "m.relates_to": relation], to: room,
                transactionID: transaction(), by: user)
        case 8:
            _ = try await sending.send(
                "org.example.sticky", content: [:], to: room, transactionID: transaction(),
                sticky: StickyEvents.longest, by: user)
        case 9, 10:
            let events = try await log(room).map(\.event.eventID)
            guard let place = events.indices.randomElement(using: &generator) else { return }
            let type = chance(2) ? "m.read" : "m.read.private"
            let thread = chance(3) ? "main" : nil
            try await server.homeserver.receipts.setReceipt(type, on: events[place], thread: thread, in: room, by: user)
            let key = "\(user.userID) \(type) \(thread ?? "")"
            // None goes back.
            if let before = receipts[room.string]?[key]?.event,
                let other = events.firstIndex(where: { $0.string == before }), other > place
            {
                return
            }
            receipts[room.string, default: [:]][key] = (index, type, events[place].string)
        case 11:
            let own = try await log(room).filter { ["m.room.message", "org.example.sticky"].contains($0.event.type) }
            guard let event = own.suffix(3).randomElement(using: &generator) else { return }
            _ = try await sending.send(
                "m.room.redaction", content: ["redacts": .string(event.event.eventID.string)], to: room,
                transactionID: transaction(), redacts: event.event.eventID, by: user)
        case 12, 13:
            let begins = chance(2)
            try await server.homeserver.receipts.setTyping(begins ? 100_000 : nil, in: room, by: user)
            if begins {
                typing[room.string, default: []].insert(user.userID.string)
            } else {
                typing[room.string]?.remove(user.userID.string)
            }
        default: try await follow(index, in: room)
        }
    }

    private mutating func follow(_ index: Int, in room: RoomID) async throws {
        let service = server.homeserver.threadSubscriptions
        let log = try await log(room)
        let replies = log.filter { $0.event.content["m.relates_to"]?["rel_type"]?.isString("m.thread") == true }
        let reply = replies.randomElement(using: &generator)
        let named = reply?.event.content["m.relates_to"]?["event_id"]?.string.map { EventID(unchecked: $0) }
        guard let root = named ?? log.randomElement(using: &generator)?.event.eventID else { return }
        let known = subscriptions[index]?[room.string]?[root.string]
        switch Int.random(in: 0..<3, using: &generator) {
        case 0:
            try await service.subscribe(to: root, in: room, because: nil, by: users[index])
            subscriptions[index, default: [:]][room.string, default: [:]][root.string] = false
        case 1:
            guard let reply else { return }
            try await service.subscribe(to: root, in: room, because: reply.event.eventID, by: users[index])
            subscriptions[index, default: [:]][room.string, default: [:]][root.string] = known ?? true
        default:
            try await service.unsubscribe(from: root, in: room, by: users[index])
            subscriptions[index]?[room.string]?[root.string] = nil
        }
    }

    // MARK: - Rooms, and people themselves

    private mutating func change(_ index: Int, in room: RoomID) async throws {
        let user = users[index]
        let other = users.randomElement(using: &generator)!
        let memberships = server.homeserver.memberships
        switch Int.random(in: 0..<18, using: &generator) {
        case 0, 1: try await memberships.join(room, reason: nil, by: user)
        case 2: try await memberships.leave(room, reason: nil, by: user)
        case 3: try await memberships.invite(other.userID, to: room, reason: nil, by: user)
        case 4: try await memberships.remove(other.userID, from: room, .kick, reason: nil, by: user)
        case 5: try await memberships.remove(other.userID, from: room, .ban, reason: nil, by: user)
        case 6, 7: try await memberships.remove(other.userID, from: room, .unban, reason: nil, by: user)
        case 8:
            try await memberships.forget(room, by: user)
            forgotten[index, default: [:]][room.string] = try await log(room).count
        case 9, 10, 11: try await changeState(in: room, by: user)
        case 12, 13:
            let field = chance(2) ? "displayname" : "org.example.status"
            let number = Int.random(in: 0..<9, using: &generator)
            let value: JSON? = number == 0 ? JSON?.none : .string("\(number)")
            try await server.homeserver.profiles.set(field, to: value, for: user)
            profiles[user.userID.string, default: [:]][field] = value
        case 14:
            direct[index] = Set(rooms.map(\.string).filter { _ in chance(2) })
            let content: JSON = ["@somebody:localhost": .array(direct[index]!.sorted().map { .string($0) })]
            try await server.homeserver.accountData.set(
                "m.direct", to: try JSONDocument(parsing: content.encoded()).root, in: nil, for: user)
        default:
            let tag = "u.\(Int.random(in: 0..<3, using: &generator))"
            let removes = chance(3)
            try await server.homeserver.accountData.setTag(tag, to: removes ? JSON?.none : [:], of: room, for: user)
            let tags = try await server.homeserver.accountData.tags(of: room, for: user)
            accountData[index, default: [:]][room.string, default: [:]]["m.tag"] = ["tags": .object(tags)]
        }
    }

    private mutating func changeState(in room: RoomID, by user: Requester) async throws {
        let key: StateKey
        let content: JSON
        switch Int.random(in: 0..<4, using: &generator) {
        case 0:
            let visibility = ["world_readable", "shared", "invited", "joined"].randomElement(using: &generator)!
            (key, content) = (.historyVisibility, ["history_visibility": .string(visibility)])
        case 1:
            key = StateKey("m.room.topic")
            content = ["topic": .integer(Int64.random(in: 0..<99, using: &generator))]
        case 2:
            key = StateKey("m.space.child", rooms.randomElement(using: &generator)!.string)
            content = chance(3) ? [:] : ["via": ["localhost"]]
        default: (key, content) = (.encryption, ["algorithm": "m.megolm.v1.aes-sha2"])
        }
        _ = try await server.homeserver.sending.setState(key, content: content, in: room, by: user)
    }
}
