import Database
import Glibc
import MatrixCore
import RoostTestSupport
import Testing

@testable import Homeserver

/// Random operations of several users, whose clients sync now and then, with all kinds of filters, lose answers and begin anew:
/// what each has put together is what a naive model says that it may see. The seed in a failure's message plays it again.
@Suite("Sync, against a model", .onEachEngine)
struct SyncModelTests {
    /// `ROOST_SYNC_SEEDS=100-400` runs others than those that always run.
    private static let seeds: ClosedRange<UInt64> = {
        let ends = getenv("ROOST_SYNC_SEEDS").map {
            String(cString: $0).split(separator: "-").compactMap { UInt64($0) }
        }
        guard let ends, let first = ends.first, let last = ends.last, first <= last else { return 0...9 }
        return first...last
    }()

    @Test("what clients put together is what they may see", arguments: seeds)
    func model(seed: UInt64) async throws {
        var world = try await SyncWorld(seed: seed)
        for step in 0..<110 {
            if world.chance(45) { try await world.restart() }
            try await world.act()
            for client in world.clients.indices where world.chance(4) {
                try await world.sync(client, "seed \(seed), step \(step), client \(client)")
            }
            for client in world.slidingClients.indices where world.chance(4) {
                try await world.slidingSync(client, "seed \(seed), step \(step), sliding client \(client)")
            }
        }
        for client in world.clients.indices { try await world.sync(client, "seed \(seed), end, client \(client)") }
        for client in world.slidingClients.indices {
            try await world.slidingSync(client, "seed \(seed), end, sliding client \(client)")
        }
        await world.server.close()
    }
}

/// A client: what it has been told, put together as the specification says.
struct SyncClient {
    struct Room {
        var timeline: [String] = []
        var state: [StateKey: String] = [:]
        var receipts: [String: String] = [:]
        var accountData: [String: JSON] = [:]
        var typing: Set<String> = []
        /// The names of events that were told because they are sticky.
        var sticky: Set<String> = []
    }

    let user: Int
    let limit: Int
    let isLazy: Bool
    let wantsStateAfter: Bool
    let leavesOut: String?
    var since: String?
    var joined: [String: Room] = [:]
    var left: [String: Room] = [:]
    var invites: Set<String> = []
    var knocks: Set<String> = []
    var profiles = KnownProfiles()

    var timelineFilter: String {
        let types = leavesOut.map { #","not_types":["\#($0)"]"# } ?? ""
        return #"{"limit":\#(limit)\#(types)}"#
    }

    var filter: String {
        #"""
        {"room":{"timeline":\#(timelineFilter),"state":{"lazy_load_members":\#(isLazy)}},
        "org.matrix.msc4429.profile_fields":{"ids":["displayname","org.example.status"]}}
        """#
    }
}

/// What a few people do in a few rooms, and what each of their clients must have put together of it.
struct SyncWorld {
    var server: TestServer
    var generator: SeededGenerator
    var users: [Requester] = []
    var rooms: [RoomID] = []
    var clients: [SyncClient] = []
    var slidingClients: [SlidingClient] = []
    /// How long a room's log was when a user forgot it.
    var forgotten: [Int: [String: Int]] = [:]
    /// What was read last: by room, and by user, type and thread.
    var receipts: [String: [String: (user: Int, type: String, event: String)]] = [:]
    var accountData: [Int: [String: [String: JSON]]] = [:]
    /// Who is typing, by room.
    var typing: [String: Set<String>] = [:]
    /// What people show of themselves.
    var profiles: [String: [String: JSON]] = [:]
    /// Which threads users follow, by room and root, and whether by themselves.
    var subscriptions: [Int: [String: [String: Bool]]] = [:]
    /// Which rooms are direct chats to a user.
    var direct: [Int: Set<String>] = [:]

    init(seed: UInt64) async throws {
        server = try await TestServer()
        generator = SeededGenerator(seed: seed)
        for name in ["alice", "bob", "carol"] { users.append(try await server.user(name)) }
        for user in users {
            let fields = try await server.homeserver.profiles.profile(of: user.userID)
            profiles[user.userID.string] = Dictionary(fields.map { ($0.key, $0.value) }) { $1 }
        }
        for user in users.indices {
            for number in 0..<3 {
                clients.append(
                    SyncClient(
                        user: user, limit: [1, 2, 3, 5, 20].randomElement(using: &generator)!,
                        isLazy: number == 1, wantsStateAfter: chance(2),
                        leavesOut: number == 2
                            ? ["m.room.member", "m.room.message"].randomElement(using: &generator) : nil
                    ))
            }
            for _ in 0..<2 { slidingClients.append(SlidingClient(user: user)) }
        }
    }

    // MARK: - What there is

    struct Entry {
        let event: Event
        let position: Int64
        /// The state before it.
        let before: [StateKey: Event]
    }

    /// All that ever happened in a room.
    func log(_ roomID: RoomID) async throws -> [Entry] {
        let homeserver = server.homeserver
        let room = try #require(try await homeserver.reading.rooms.room(roomID))
        return try await homeserver.database.read { reader in
            let numbers = try await homeserver.database.timeline(
                of: room.nid, from: .init(depth: 0, position: .min), backwards: false, limit: 100_000, reader)
            var state: [StateKey: Event] = [:]
            var entries: [Entry] = []
            for stored in try await homeserver.database.events(numbers, reader) {
                let event = try homeserver.reading.context.parse(stored, room.version)
                entries.append(Entry(event: event, position: stored.position ?? 0, before: state))
                if let key = event.stateMapKey { state[key] = event }
            }
            return entries
        }
    }

    static func state(after log: [Entry]) -> [StateKey: Event] {
        guard let last = log.last else { return [:] }
        var state = last.before
        if let key = last.event.stateMapKey { state[key] = last.event }
        return state
    }

    static func membership(_ user: UserID, _ state: [StateKey: Event]) -> String {
        state[.member(user)]?.content["membership"]?.string ?? "leave"
    }

    /// The part of a room's log that a user may see, by the rules of "Room History Visibility".
    static func visible(_ log: [Entry], to user: UserID) -> [Event] {
        var end = log.count
        var isIn = false
        var wasIn = false
        for (index, entry) in log.enumerated() {
            guard entry.event.stateMapKey == .member(user) else { continue }
            let membership = entry.event.content["membership"]?.string
            if membership == "join" {
                isIn = true
                wasIn = true
                end = log.count
            } else if isIn {
                isIn = false
                end = index + 1
            }
        }
        guard wasIn else { return [] }
        let lastJoin = log.lastIndex {
            $0.event.stateMapKey == .member(user) && $0.event.content["membership"]?.string == "join"
        }!
        return log[..<end].enumerated().filter { index, entry in
            var visibilities = [entry.before[.historyVisibility]?.content["history_visibility"]?.string ?? "shared"]
            var memberships = [membership(user, entry.before)]
            if entry.event.stateMapKey == .historyVisibility {
                visibilities.append(entry.event.content["history_visibility"]?.string ?? "shared")
            }
            if entry.event.stateMapKey == .member(user) {
                memberships.append(entry.event.content["membership"]?.string ?? "leave")
            }
            if visibilities.contains("world_readable") || memberships.contains("join") { return true }
            if visibilities.contains("shared"), index <= lastJoin { return true }
            return visibilities.contains("invited") && memberships.contains("invite")
        }.map(\.element.event)
    }

    // MARK: - What a client does with it

    mutating func sync(_ index: Int, _ place: Comment) async throws {
        var client = clients[index]
        let user = users[client.user]
        // Now and then a client begins anew, or loses an answer and asks again.
        if chance(12) {
            client = SyncClient(
                user: client.user, limit: client.limit, isLazy: client.isLazy, wantsStateAfter: client.wantsStateAfter,
                leavesOut: client.leavesOut)
        }
        var request = SyncService.Request(
            since: client.since, timeout: 0, fullState: false,
            filter: try SyncFilter(try JSONDocument(parsing: Array(client.filter.utf8)).root))
        request.wantsStateAfter = client.wantsStateAfter
        if chance(6) { _ = try await server.homeserver.sync.sync(request, for: user) }
        let answer = try JSONDocument(parsing: try await server.homeserver.sync.sync(request, for: user)).root
        try await take(answer, &client, user)
        client.since = try #require(answer["next_batch"]?.string)
        clients[index] = client
        try await check(client, user, place)
    }

    private func take(_ answer: JSONView, _ client: inout SyncClient, _ user: Requester) async throws {
        let rooms = answer["rooms"]
        client.profiles.take(answer["org.matrix.msc4429.users"])
        for (id, part) in rooms?["join"].map({ Array($0.members.map { ($0.key, $0.value) }) }) ?? [] {
            let isNew = client.joined[id] == nil
            var room = client.joined[id] ?? SyncClient.Room()
            try await take(part, id, &room, isNew, client, user)
            client.joined[id] = room
            client.left[id] = nil
            client.invites.remove(id)
            client.knocks.remove(id)
        }
        for (id, part) in rooms?["leave"].map({ Array($0.members.map { ($0.key, $0.value) }) }) ?? [] {
            let isNew = client.joined[id] == nil
            var room = client.joined[id] ?? SyncClient.Room()
            try await take(part, id, &room, isNew, client, user)
            client.joined[id] = nil
            client.left[id] = room
            client.invites.remove(id)
            client.knocks.remove(id)
        }
        for (id, _) in rooms?["invite"].map({ Array($0.members.map { ($0.key, $0.value) }) }) ?? [] {
            client.invites.insert(id)
            client.joined[id] = nil
        }
    }

    private func take(
        _ part: JSONView, _ id: String, _ room: inout SyncClient.Room, _ isNew: Bool, _ client: SyncClient,
        _ user: Requester
    ) async throws {
        let events = part["timeline"]?["events"]?.elements.map { $0 } ?? []
        var fresh = events.compactMap { $0["event_id"]?.string }
        if isNew || part["timeline"]?["limited"]?.bool == true {
            // The gap is filled by going back to what is known.
            var from = part["timeline"]?["prev_batch"]?.string
            let known = Set(room.timeline)
            paging: while let token = from {
                guard let page = try await page(of: id, from: token, client.timelineFilter, for: user) else { break }
                for event in page["chunk"]?.elements.map({ $0 }) ?? [] {
                    guard let eventID = event["event_id"]?.string else { continue }
                    if known.contains(eventID) { break paging }
                    fresh.insert(eventID, at: 0)
                }
                from = page["end"]?.string
            }
        }
        room.timeline += fresh
        let state = part[client.wantsStateAfter ? "state_after" : "state"]?["events"]?.elements.map { $0 } ?? []
        for event in state + (client.wantsStateAfter ? [] : events) {
            guard let type = event["type"]?.string, let key = event["state_key"]?.string else { continue }
            room.state[StateKey(type, key)] = event["event_id"]?.string
        }
        for event in part["msc4354_sticky"]?["events"]?.elements.map({ $0 }) ?? [] {
            if let eventID = event["event_id"]?.string { room.sticky.insert(eventID) }
        }
        for event in part["ephemeral"]?["events"]?.elements.map({ $0 }) ?? [] {
            if event["type"]?.string == "m.typing" {
                room.typing = Set(event["content"]?["user_ids"]?.elements.compactMap(\.string) ?? [])
                continue
            }
            for (eventID, types) in event["content"]!.members {
                for (type, people) in types.members {
                    for (person, data) in people.members {
                        room.receipts["\(person) \(type) \(data["thread_id"]?.string ?? "")"] = eventID
                    }
                }
            }
        }
        for event in part["account_data"]?["events"]?.elements.map({ $0 }) ?? [] {
            room.accountData[event["type"]!.string!] = event["content"]!.json
        }
    }

    /// A page of a room's history; nil if the user has forgotten the room.
    func page(of id: String, from: String, _ filter: String, for user: Requester) async throws -> JSONView? {
        let filter = try RoomEventFilter(try JSONDocument(parsing: Array(filter.utf8)).root)
        do {
            return try JSONDocument(
                parsing: try await server.homeserver.reading.messages(
                    in: RoomID(unchecked: id), .init(from: from, to: nil, backwards: true, limit: 7, filter: filter),
                    for: user)
            ).root
        } catch let failure as MatrixError {
            #expect(forgotten[users.firstIndex { $0.nid == user.nid }!]?[id] != nil, "\(failure)")
            return nil
        }
    }

    private func check(_ client: SyncClient, _ user: Requester, _ place: Comment) async throws {
        var joined: Set<String> = [], invited: Set<String> = []
        for room in rooms {
            let log = try await log(room)
            let state = Self.state(after: log)
            switch Self.membership(user.userID, state) {
            case "join": joined.insert(room.string)
            case "invite": invited.insert(room.string)
            default: break
            }
            let visible = Self.visible(log, to: user.userID).filter { $0.type != client.leavesOut }.map(
                \.eventID.string)
            if let shown = client.left[room.string], !joined.contains(room.string) {
                #expect(Set(shown.timeline).count == shown.timeline.count, "\(place): twice in \(room)")
                // Whatever the user is in the room, is the user's business.
                let own = log.filter { $0.event.stateMapKey == .member(user.userID) }.map(\.event.eventID.string)
                #expect(Set(shown.timeline).isSubset(of: visible + own), "\(place): forbidden in \(room)")
            }
            guard joined.contains(room.string), let shown = client.joined[room.string] else { continue }
            #expect(shown.timeline == visible, "\(place): the timeline of \(room)")
            if !client.isLazy, client.leavesOut == nil || client.wantsStateAfter {
                #expect(shown.state == state.mapValues(\.eventID.string), "\(place): the state of \(room)")
            }
            if client.isLazy, client.leavesOut == nil || client.wantsStateAfter {
                // Members that it hasn't been shown are missing; of those that it knows none is other than it is.
                for (key, event) in shown.state {
                    #expect(event == state[key]?.eventID.string, "\(place): outdated \(key) of \(room)")
                }
            }
            let read = (receipts[room.string] ?? [:]).filter {
                $0.value.type == "m.read" || $0.value.user == client.user
            }
            #expect(shown.receipts == read.mapValues(\.event), "\(place): the receipts of \(room)")
            #expect(
                shown.accountData == accountData[client.user]?[room.string] ?? [:], "\(place): the tags of \(room)")
            #expect(shown.typing == typing[room.string] ?? [], "\(place): who is typing in \(room)")
            #expect(
                shown.sticky.union(shown.timeline).isSuperset(of: Self.sticky(log)), "\(place): what sticks in \(room)")
        }
        let sharing = try await sharing(client.user)
        client.profiles.check(profiles, sharing, isWhole: true, "\(place): profiles")
        #expect(Set(client.joined.keys) == joined, "\(place): the rooms")
        #expect(client.invites == invited, "\(place): the invitations")
    }
}
