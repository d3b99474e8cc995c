import Database
import MatrixCore
import RoostTestSupport
import Testing

@testable import Homeserver

/// A client that syncs by windows, which it makes larger and smaller at will: what it has been told, put together as MSC4186 says.
struct SlidingClient {
    struct Room {
        var membership = ""
        var timeline: [String] = []
        var state: [StateKey: String] = [:]
        var receipts: [String: String] = [:]
        var name: String?
        var joined: Int64?
        /// The receipts that there were when the client was told of the room first.
        var receiptsBefore: [String: String] = [:]
    }

    /// Which state it asks for.
    enum Wish: CaseIterable {
        case named, all, lazy

        var json: JSON {
            switch self {
            case .named: [["m.room.topic", ""], ["m.room.member", "$ME"]]
            case .all: ["include": [[:]]]
            case .lazy: [["*", "*"], ["m.room.member", "$LAZY"]]
            }
        }
    }

    let user: Int
    var pos: String?
    var rooms: [String: Room] = [:]
    var accountData: [String: [String: JSON]] = [:]
}

extension SyncWorld {
    /// Syncs with a window, a limit and a wish of the moment, and checks that the rooms of the window are as they are.
    mutating func slidingSync(_ index: Int, _ place: Comment) async throws {
        var client = slidingClients[index]
        let user = users[client.user]
        // Now and then a client begins anew, or loses an answer and asks again.
        if chance(12) { client = SlidingClient(user: client.user) }
        let window = [1, 2, 3, 100].randomElement(using: &generator)!
        let limit = [0, 1, 2, 5, 20].randomElement(using: &generator)!
        let wish = SlidingClient.Wish.allCases.randomElement(using: &generator)!
        let subscribed = chance(3) ? rooms.randomElement(using: &generator) : nil
        let config: JSON = ["timeline_limit": .integer(Int64(limit)), "required_state": wish.json]
        var list = config
        list["range"] = [0, .integer(Int64(window - 1))]
        let body: JSON = [
            "conn_id": .string("\(index)"), "lists": ["all": list],
            "room_subscriptions": subscribed.map { .object(JSONObject([($0.string, config)])) } ?? [:],
            "extensions": ["account_data": ["enabled": true], "receipts": ["enabled": true]],
        ]
        if chance(6) { _ = try await server.slidingSync(user, body, pos: client.pos) }
        let known = Set(client.rooms.keys)
        let answer = try await server.slidingSync(user, body, pos: client.pos)
        client.pos = try #require(answer["pos"]?.string)
        for (id, part) in answer["rooms"]!.members { try await take(part, id, wish, &client, user, place) }
        let extensions = answer["extensions"]
        for (id, event) in extensions?["receipts"]?["rooms"].map({ $0.members.map { ($0.key, $0.value) } }) ?? [] {
            for (eventID, types) in event["content"]!.members {
                for (type, people) in types.members {
                    for (person, data) in people.members {
                        client.rooms[id]?.receipts["\(person) \(type) \(data["thread_id"]?.string ?? "")"] = eventID
                    }
                }
            }
        }
        for (id, events) in extensions?["account_data"]?["rooms"].map({ $0.members.map { ($0.key, $0.value) } }) ?? [] {
            for event in events.elements {
                client.accountData[id, default: [:]][event["type"]!.string!] = event["content"]!.json
            }
        }
        slidingClients[index] = client
        let listed = try await expectedList(client.user, known: known)
        #expect(answer["lists"]?["all"]?["count"]?.integer == Int64(listed.count), "\(place): the length of the list")
        var shown = Array(listed.prefix(window))
        if let subscribed, try await mayBeShown(subscribed, client.user, known: known), !shown.contains(subscribed) {
            shown.append(subscribed)
        }
        try await check(client, shown, wish, place)
    }

    private func take(
        _ part: JSONView, _ id: String, _ wish: SlidingClient.Wish, _ client: inout SlidingClient, _ user: Requester,
        _ place: Comment
    ) async throws {
        let isNew = part["initial"]?.bool == true
        var room = client.rooms[id] ?? SlidingClient.Room()
        #expect(isNew || client.rooms[id] != nil, "\(place): \(id) is told as known")
        if isNew {
            room = SlidingClient.Room()
            room.receiptsBefore = receipts[id]?.mapValues(\.event) ?? [:]
        }
        room.membership = try #require(part["membership"]?.string)
        let isLimited = part["limited"]?.bool == true
        let isExpanded = part["expanded_timeline"]?.bool == true
        let events = part["timeline"]?.elements.map { $0 } ?? []
        var fresh = events.compactMap { $0["event_id"]?.string }
        let known = Set(room.timeline)
        if isExpanded { fresh.removeAll { known.contains($0) } }
        #expect(known.isDisjoint(with: fresh), "\(place): told twice in \(id)")
        if isLimited, !isExpanded || fresh.count == events.count {
            var from = part["prev_batch"]?.string
            paging: while let token = from {
                let page = try JSONDocument(
                    parsing: try await server.homeserver.reading.messages(
                        in: RoomID(unchecked: id),
                        .init(from: token, to: nil, backwards: true, limit: 7, filter: RoomEventFilter()), for: user)
                ).root
                for event in page["chunk"]?.elements.map({ $0 }) ?? [] {
                    guard let eventID = event["event_id"]?.string else { continue }
                    if known.contains(eventID) { break paging }
                    fresh.insert(eventID, at: 0)
                }
                from = page["end"]?.string
            }
        }
        room.timeline += fresh
        // What changed behind a gap may not be told of members that are loaded lazily.
        if isLimited, wish == .lazy { room.state = room.state.filter { $0.key.type != "m.room.member" } }
        for event in part["required_state"]?.elements.map({ $0 }) ?? [] {
            guard let type = event["type"]?.string, let key = event["state_key"]?.string else { continue }
            room.state[StateKey(type, key)] = event["event_id"]?.string
        }
        if let name = part["name"] { room.name = name.string }
        if let joined = part["joined_count"]?.integer { room.joined = joined }
        client.rooms[id] = room
    }

    // MARK: - What must be

    private func ending(_ log: [Entry], _ user: UserID) -> (position: Int64, before: String, byOther: Bool)? {
        guard let last = log.last(where: { $0.event.stateMapKey == .member(user) }) else { return nil }
        return (last.position, Self.membership(user, last.before), last.event.sender != user)
    }

    private func isForgotten(_ room: RoomID, _ log: [Entry], _ user: Int) -> Bool {
        guard let at = forgotten[user]?[room.string] else { return false }
        return !log[at...].contains { $0.event.stateMapKey == .member(users[user].userID) }
    }

    /// The rooms of a user in the order of their activity.
    private func expectedList(_ index: Int, known: Set<String>) async throws -> [RoomID] {
        let user = users[index].userID
        var found: [(room: RoomID, position: Int64)] = []
        for room in rooms {
            let log = try await log(room)
            guard !isForgotten(room, log, index), let ending = ending(log, user) else { continue }
            switch Self.membership(user, Self.state(after: log)) {
            case "join": found.append((room, log.last?.position ?? 0))
            case "invite", "knock": found.append((room, ending.position))
            default:
                let wasSentAway = ending.byOther && ["join", "invite", "knock"].contains(ending.before)
                if wasSentAway || known.contains(room.string) { found.append((room, ending.position)) }
            }
        }
        return found.sorted { $0.position > $1.position }.map(\.room)
    }

    private func mayBeShown(_ room: RoomID, _ index: Int, known: Set<String>) async throws -> Bool {
        let log = try await log(room)
        guard !isForgotten(room, log, index), let ending = ending(log, users[index].userID) else { return false }
        if ["join", "invite", "knock"].contains(Self.membership(users[index].userID, Self.state(after: log))) {
            return true
        }
        return ["join", "invite", "knock"].contains(ending.before) || known.contains(room.string)
    }

    private func check(
        _ client: SlidingClient, _ shown: [RoomID], _ wish: SlidingClient.Wish, _ place: Comment
    ) async throws {
        let user = users[client.user].userID
        for (id, room) in client.rooms {
            let visible = Self.visible(try await log(RoomID(unchecked: id)), to: user).map(\.eventID.string)
            #expect(Set(room.timeline).isSubset(of: visible), "\(place): forbidden in \(id)")
            #expect(
                client.accountData[id] ?? [:] == accountData[client.user]?[id] ?? [:], "\(place): the tags of \(id)")
        }
        for room in shown {
            guard let told = client.rooms[room.string] else {
                Issue.record("\(place): \(room) is not told")
                continue
            }
            let log = try await log(room)
            let state = Self.state(after: log)
            let membership = Self.membership(user, state)
            #expect(told.membership == membership, "\(place): the membership of \(room)")
            guard membership == "join" else { continue }
            #expect(
                told.timeline == Self.visible(log, to: user).map(\.eventID.string), "\(place): the timeline of \(room)")
            #expect(
                told.joined
                    == Int64(
                        state.values.count { $0.type == "m.room.member" && $0.content["membership"]?.string == "join" }),
                "\(place): the members of \(room)")
            check(told.state, state.mapValues(\.eventID.string), wish, user, "\(place): \(room)")
            check(told, room.string, client.user, "\(place)")
        }
    }

    private func check(
        _ told: [StateKey: String], _ state: [StateKey: String], _ wish: SlidingClient.Wish, _ user: UserID,
        _ place: Comment
    ) {
        switch wish {
        case .named:
            for key in [StateKey("m.room.topic"), .member(user)] {
                #expect(told[key] == state[key], "\(place): \(key)")
            }
        case .all: #expect(told == state, "\(place): the state")
        case .lazy:
            let isMember: (StateKey) -> Bool = { $0.type == "m.room.member" }
            #expect(
                told.filter { !isMember($0.key) } == state.filter { !isMember($0.key) }, "\(place): the state")
        }
    }

    private func check(_ told: SlidingClient.Room, _ room: String, _ user: Int, _ place: Comment) {
        let all = (receipts[room] ?? [:]).filter { $0.value.type == "m.read" || $0.value.user == user }
        for (key, event) in told.receipts {
            #expect(all[key]?.event == event, "\(place): a receipt of \(room)")
        }
        for (key, receipt) in all where receipt.user == user || told.receiptsBefore[key] != receipt.event {
            // One of no thread goes for the threads, too.
            let whole = String(key[...key.lastIndex(of: " ")!])
            if key != whole, told.receipts[whole] == receipt.event { continue }
            #expect(told.receipts[key] == receipt.event, "\(place): a receipt of \(room) is missing")
        }
    }
}
