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
        var isDirect = false
        var typing: Set<String> = []
        /// How long the room's log was when the client was told of it last.
        var toldAt = 0
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
    var profiles = KnownProfiles()
    /// By room and root, whether a thread is followed automatically, and the stamp of that; nil: it isn't followed.
    var threads: [String: [String: (isAutomatic: Bool?, stamp: Int64)]] = [:]
    var sticky: Set<String> = []

    static let threadExtension = "io.element.msc4308.thread_subscriptions"
    static let stickyExtension = "org.matrix.msc4354.sticky_events"
    static let profileExtension = "org.matrix.msc4262.profiles"

    /// Takes changes of subscriptions to threads, in whatever order they come (MSC4308, "Use of `bump_stamp`").
    mutating func take(threads changes: JSON) {
        for name in ["subscribed", "unsubscribed"] {
            for (room, roots) in changes[name]?.objectValue ?? [:] {
                for (root, entry) in roots.objectValue ?? [:] {
                    let stamp = entry["bump_stamp"]?.integerValue ?? 0
                    if let known = threads[room]?[root], known.stamp > stamp { continue }
                    threads[room, default: [:]][root] = (entry["automatic"]?.boolValue, stamp)
                }
            }
        }
    }

    var followed: [String: [String: Bool]] {
        threads.mapValues { $0.compactMapValues(\.isAutomatic) }.filter { !$0.value.isEmpty }
    }
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
        let filter = chance(3) ? SlidingModelFilter.random(rooms, &generator) : nil
        let config: JSON = ["timeline_limit": .integer(Int64(limit)), "required_state": wish.json]
        var list = config
        list["range"] = [0, .integer(Int64(window - 1))]
        list["filters"] = filter?.json
        let threads: Int64 = chance(2) ? 100 : 1
        let body: JSON = [
            "conn_id": .string("\(index)"), "lists": ["all": list],
            "room_subscriptions": subscribed.map { .object(JSONObject([($0.string, config)])) } ?? [:],
            "extensions": [
                "account_data": ["enabled": true], "receipts": ["enabled": true], "typing": ["enabled": true],
                SlidingClient.profileExtension: ["enabled": true, "fields": ["displayname", "org.example.status"]],
                SlidingClient.stickyExtension: ["enabled": true],
                SlidingClient.threadExtension: ["enabled": true, "limit": .integer(threads)],
            ],
        ]
        if chance(6) { _ = try await server.slidingSync(user, body, pos: client.pos) }
        let known = client.rooms.mapValues(\.toldAt)
        let answer = try await server.slidingSync(user, body, pos: client.pos)
        let before = client.pos
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
        for (id, event) in extensions?["typing"]?["rooms"].map({ $0.members.map { ($0.key, $0.value) } }) ?? [] {
            client.rooms[id]?.typing = Set(event["content"]?["user_ids"]?.elements.compactMap(\.string) ?? [])
        }
        client.profiles.takeSliding(extensions?[SlidingClient.profileExtension]?["users"])
        for room in extensions?[SlidingClient.stickyExtension]?["rooms"].map({ $0.members.map(\.value) }) ?? [] {
            client.sticky.formUnion(room["events"]?.elements.compactMap { $0["event_id"]?.string } ?? [])
        }
        try await takeThreads(extensions?[SlidingClient.threadExtension], &client, since: before, user)
        slidingClients[index] = client
        var listed: [RoomID] = []
        for room in try await expectedList(client.user, known: known) {
            if let filter, try await !admits(filter, room, for: client.user) { continue }
            listed.append(room)
        }
        #expect(answer["lists"]?["all"]?["count"]?.integer == Int64(listed.count), "\(place): the length of the list")
        var shown = Array(listed.prefix(window))
        if let subscribed, try await mayBeShown(subscribed, client.user, known: known), !shown.contains(subscribed) {
            shown.append(subscribed)
        }
        try await check(client, shown, wish, place)
        try await checkExtensions(client, answer, wish, place)
    }

    /// Takes the changes that an answer tells, and goes back to those that it leaves out.
    private func takeThreads(
        _ told: JSONView?, _ client: inout SlidingClient, since: String?, _ user: Requester
    ) async throws {
        guard let told else { return }
        client.take(threads: told.json)
        var from = told["prev_batch"]?.string
        while let token = from {
            let page = try await server.homeserver.threadSubscriptions.page(from: token, to: since, limit: 2, for: user)
            client.take(threads: page)
            from = page["end"]?.stringValue
        }
    }

    private func checkExtensions(
        _ client: SlidingClient, _ answer: JSONView, _ wish: SlidingClient.Wish, _ place: Comment
    ) async throws {
        let followed = (subscriptions[client.user] ?? [:]).filter { !$0.value.isEmpty }
        #expect(client.followed == followed, "\(place): the threads")
        let user = users[client.user].userID
        for room in rooms {
            let log = try await log(room)
            guard Self.membership(user, Self.state(after: log)) == "join" else { continue }
            #expect(client.sticky.isSuperset(of: Self.sticky(log)), "\(place): what sticks in \(room)")
        }
        client.profiles.check(profiles, try await sharing(client.user), isWhole: false, "\(place): profiles")
        // All members of a room that is told first, unless they are loaded lazily.
        for (id, part) in answer["rooms"]!.members where wish != .lazy && part["initial"]?.bool == true {
            guard part["membership"]?.isString("join") == true else { continue }
            for member in Self.members(Self.state(after: try await log(RoomID(unchecked: id)))) {
                #expect(
                    client.profiles.fields[member] ?? [:] == profiles[member] ?? [:], "\(place): \(member) in \(id)")
            }
        }
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
        room.toldAt = try await log(RoomID(unchecked: id)).count
        if let isDirect = part["is_dm"]?.bool { room.isDirect = isDirect }
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
                guard let page = try await page(of: id, from: token, "{}", for: user) else { break }
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

    /// Whether a room is out of a user's sight, who has forgotten it.
    ///
    /// - Parameter known: how much of the log there was when the client was told last: that the user has left must be told.
    private func isForgotten(_ room: RoomID, _ log: [Entry], _ user: Int, known: [String: Int]) -> Bool {
        guard let at = forgotten[user]?[room.string] else { return false }
        func isOwn(_ entry: Entry) -> Bool { entry.event.stateMapKey == .member(users[user].userID) }
        let isUntold = known[room.string].map { log[$0...].contains(where: isOwn) } ?? false
        return !isUntold && !log[at...].contains(where: isOwn)
    }

    /// The rooms of a user in the order of their activity.
    private func expectedList(_ index: Int, known: [String: Int]) async throws -> [RoomID] {
        let user = users[index].userID
        var found: [(room: RoomID, position: Int64)] = []
        for room in rooms {
            let log = try await log(room)
            guard !isForgotten(room, log, index, known: known), let ending = ending(log, user) else { continue }
            switch Self.membership(user, Self.state(after: log)) {
            case "join": found.append((room, log.last?.position ?? 0))
            case "invite", "knock": found.append((room, ending.position))
            default:
                let wasSentAway = ending.byOther && ["join", "invite", "knock"].contains(ending.before)
                if wasSentAway || known[room.string] != nil { found.append((room, ending.position)) }
            }
        }
        return found.sorted { $0.position > $1.position }.map(\.room)
    }

    private func mayBeShown(_ room: RoomID, _ index: Int, known: [String: Int]) async throws -> Bool {
        let log = try await log(room)
        guard !isForgotten(room, log, index, known: known), let ending = ending(log, users[index].userID) else {
            return false
        }
        if ["join", "invite", "knock"].contains(Self.membership(users[index].userID, Self.state(after: log))) {
            return true
        }
        return ["join", "invite", "knock"].contains(ending.before) || known[room.string] != nil
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
            #expect(told.typing == typing[room.string] ?? [], "\(place): who is typing in \(room)")
            #expect(
                told.isDirect == direct[client.user]?.contains(room.string) ?? false,
                "\(place): whether \(room) is a direct chat")
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
