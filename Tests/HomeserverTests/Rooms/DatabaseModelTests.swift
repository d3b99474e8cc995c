import Database
import MatrixCore
import RoostTestSupport
import Testing

@testable import Homeserver

/// Random acts of several users in several rooms, with restarts in between, beside a model that keeps everything in plain
/// arrays and dictionaries. Whatever is asked of the database, the model must say the same.
@Suite("The database against a model", .onEachEngine)
struct DatabaseModelTests {
    private struct ModelEvent {
        let id: EventID
        let key: StateKey?
        let stateBefore: [StateKey: EventID]
    }

    private struct ModelRoom {
        let id: RoomID
        var events: [ModelEvent] = []
        var state: [StateKey: EventID] = [:]
        var members: [UserID: Membership] = [:]

        /// The events that have held a key, oldest first.
        func history(of key: StateKey) -> [EventID] { events.filter { $0.key == key }.map(\.id) }
    }

    private final class World {
        var server: TestServer
        var users: [Requester] = []
        var rooms: [ModelRoom] = []
        var generator: SeededGenerator
        let seed: UInt64

        init(server: TestServer, seed: UInt64) {
            self.server = server
            self.seed = seed
            generator = SeededGenerator(seed: seed)
        }

        /// Takes up what has happened in a room since the model last looked, from the bytes that clients get.
        func learn(_ index: Int) async throws {
            var new: [JSONView] = []
            var from: String?
            let known = Set(rooms[index].events.map(\.id.string))
            let reader = users.first { rooms[index].members[$0.userID] == .join } ?? users[0]
            paging: repeat {
                let answer = try await server.homeserver.reading.messages(
                    in: rooms[index].id,
                    .init(from: from, to: nil, backwards: true, limit: 20, filter: RoomEventFilter()),
                    for: reader)
                let page = try JSONDocument(parsing: answer).root
                for event in page["chunk"]!.elements {
                    if known.contains(event["event_id"]!.string!) { break paging }
                    new.append(event)
                }
                from = page["end"]?.string
            } while from != nil
            for event in new.reversed() {
                let id = EventID(event["event_id"]!.string!)!
                let key = event["state_key"]?.string.map { StateKey(event["type"]!.string!, $0) }
                rooms[index].events.append(ModelEvent(id: id, key: key, stateBefore: rooms[index].state))
                guard let key else { continue }
                rooms[index].state[key] = id
                if key.type == "m.room.member" {
                    rooms[index].members[UserID(key.key)!] = Membership(event["content"]?["membership"])
                }
            }
        }

        func act() async throws {
            let index = Int.random(in: 0..<rooms.count, using: &generator)
            let actor = users.randomElement(using: &generator)!
            // The first one always stays, and sees everything.
            let other = users.dropFirst().randomElement(using: &generator)!
            let room = rooms[index].id
            let memberships = server.homeserver.memberships
            do {
                switch Int.random(in: 0..<14, using: &generator) {
                case 0...4: try await server.say("\(generator.next())", in: room, by: actor)
                case 5, 6, 7:
                    let key = StateKey("m.test", "\(Int.random(in: 0..<40, using: &generator))")
                    _ = try await server.homeserver.sending.setState(
                        key, content: ["value": .integer(Int64(generator.next() % 1_000))], in: room, by: users[0])
                case 8, 9: try await memberships.join(room, reason: nil, by: actor)
                case 10: if actor.nid != users[0].nid { try await memberships.leave(room, reason: nil, by: actor) }
                case 11: try await memberships.remove(other.userID, from: room, .kick, reason: nil, by: users[0])
                case 12: try await memberships.remove(other.userID, from: room, .ban, reason: nil, by: users[0])
                default: try await memberships.remove(other.userID, from: room, .unban, reason: nil, by: users[0])
                }
            } catch let error as MatrixError where error.code == .forbidden {
                // The rules refuse many random acts; the model learns from what happened only.
            }
            try await learn(index)
        }

        func restart() async throws {
            await server.close()
            server = try await TestServer(
                directory: server.directory, clock: ManualSurroundings(seed: generator.next()))
        }
    }

    @Test("random acts, then every question", arguments: [1, 2, 3] as [UInt64])
    func agree(seed: UInt64) async throws {
        let world = World(server: try await TestServer(), seed: seed)
        for number in 0..<4 { world.users.append(try await world.server.user("user\(number)")) }
        for version in ["6", "11", "12"] {
            world.rooms.append(ModelRoom(id: try await world.server.room(of: world.users[0], version: version)))
            try await world.learn(world.rooms.count - 1)
        }
        for step in 1...240 {
            try await world.act()
            if step % 80 == 0 { try await world.restart() }
            if step % 60 == 0 { try await check(world) }
        }
        #expect(try await ConsistencyCheck(world.server.homeserver.database).run().problems == [])
        await world.server.close()
    }

    private func check(_ world: World) async throws {
        for room in world.rooms {
            try await checkStates(room, world)
            try await checkOrder(room, world)
            try await checkMembers(room, world)
        }
        let database = world.server.homeserver.database
        for user in world.users {
            let stored = try await database.read { try await database.memberships(of: user.nid, $0) }
            let expected = world.rooms.filter { $0.members[user.userID] != nil }.count
            #expect(stored.count == expected, "seed \(world.seed)")
        }
    }

    private func checkStates(_ room: ModelRoom, _ world: World) async throws {
        let database = world.server.homeserver.database
        let record = try #require(try await database.room(room.id))
        var chosen: [(ModelEvent, StoredEvent)] = []
        for _ in 0..<12 {
            let event = room.events.randomElement(using: &world.generator)!
            chosen.append((event, try #require(try await database.event(event.id))))
        }
        let pairs = chosen
        let probes = (0..<5).map { StateKey("m.test", "\($0)") } + [.create, .powerLevels]
        let numbers = try await database.existingNumbers(ofStateKeys: probes)
        let found = try await database.read { reader in
            let tree = StateTree(rows: database.stateRows, room: record.nid)
            var states: [[StateEntry]] = [], keys: [[StateKey: EventNID]] = [],
                differences: [[StateTree.Difference]] = []
            for (index, (_, stored)) in pairs.enumerated() {
                let state = stored.stateBefore ?? StateNID(0)
                states.append(try await tree.entries(in: state, reader))
                var single: [StateKey: EventNID] = [:]
                for (key, number) in numbers { single[key] = try await tree.event(for: number, in: state, reader) }
                keys.append(single)
                let other = pairs[(index + 1) % pairs.count].1.stateBefore ?? StateNID(0)
                differences.append(try await tree.differences(from: state, to: other, reader))
            }
            return (states, keys, differences)
        }
        for (index, (event, _)) in pairs.enumerated() {
            let named = try await name(found.0[index].map { ($0.key, $0.event) }, database)
            #expect(named == event.stateBefore, "seed \(world.seed)")
            for probe in probes {
                let nid = found.1[index][probe]
                let id = try await nid.asyncMap { try await database.events([$0]).first!.eventID }
                #expect(id == event.stateBefore[probe], "seed \(world.seed)")
            }
            let other = pairs[(index + 1) % pairs.count].0.stateBefore
            let changed = Set(event.stateBefore.keys).union(other.keys).filter { event.stateBefore[$0] != other[$0] }
            #expect(found.2[index].count == changed.count, "seed \(world.seed)")
        }
    }

    private func name(
        _ entries: [(StateKeyNID, EventNID)], _ database: Database
    ) async throws -> [StateKey: EventID] {
        let keys = try await database.stateKeys(entries.map(\.0))
        let events = try await database.events(entries.map(\.1))
        return Dictionary(uniqueKeysWithValues: zip(entries, events).map { (keys[$0.0]!, $1.eventID) })
    }

    private func checkOrder(_ room: ModelRoom, _ world: World) async throws {
        let database = world.server.homeserver.database
        let record = try #require(try await database.room(room.id))
        let page = Int.random(in: 1...30, using: &world.generator)
        var place = Database.OrderedPlace(depth: .max, position: .max)
        var backwards: [EventID] = []
        while true {
            let from = place
            let numbers = try await database.read { reader in
                try await database.timeline(of: record.nid, from: from, backwards: true, limit: page, reader)
            }
            let events = try await database.events(numbers)
            backwards += events.map(\.eventID)
            guard let last = events.last else { break }
            place = Database.OrderedPlace(depth: last.orderDepth, position: last.position! - 1)
        }
        #expect(backwards.reversed() == room.events.map(\.id), "seed \(world.seed)")
        #expect(try await database.events(record.extremities).map(\.eventID) == [room.events.last!.id])
        // By position: from a random event on, each room that has newer ones and no other.
        let middle = try #require(try await database.event(room.events.randomElement(using: &world.generator)!.id))
        let upTo = database.committedPosition
        let changed = try await database.read { reader in
            try await database.rooms(withEventsAfter: middle.position!, upTo: upTo, reader)
        }
        #expect(changed.contains(record.nid) == (middle.eventID != room.events.last!.id))
    }

    private func checkMembers(_ room: ModelRoom, _ world: World) async throws {
        let database = world.server.homeserver.database
        let record = try #require(try await database.room(room.id))
        for user in world.users {
            let key = StateKey.member(user.userID)
            let numbers = try await database.existingNumbers(ofStateKeys: [key])
            guard let number = numbers[key] else { continue }
            let history = try await database.read { try await database.history(of: number, in: record.nid, $0) }
            #expect(try await database.events(history).map(\.eventID) == room.history(of: key), "seed \(world.seed)")
            let stored = try await database.read { try await database.membership(of: user.nid, in: record.nid, $0) }
            #expect(stored?.membership == room.members[user.userID].map { StoredMembership($0) }, "seed \(world.seed)")
        }
        let joined = room.members.values.filter { $0 == .join }.count
        let counts = try await database.read { reader in
            (
                try await database.count(of: .join, in: record.nid, reader),
                try await database.users(in: record.nid, .join, reader).count,
                try await database.servers(in: record.nid, reader).map(\.joined)
            )
        }
        #expect(counts.0 == joined && counts.1 == joined && counts.2 == [joined], "seed \(world.seed)")
    }
}
