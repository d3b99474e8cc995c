import MatrixCore
import RoostTestSupport

@testable import Database
@testable import Homeserver

/// Whether servers have come to the same.
extension World {
    /// The servers that are in a room, as they themselves see it, each with somebody who is in it.
    func residents(of room: RoomID) async throws -> [(server: SimulatedServer, person: Person)] {
        var found: [(SimulatedServer, Person)] = []
        for server in servers {
            for person in server.people {
                guard let home = server.server?.homeserver else { continue }
                if try await home.reading.joinedRooms(of: person.requester).contains(room) {
                    found.append((server, person))
                    break
                }
            }
        }
        // One that has forgotten that it left may believe itself in a room in which the others know better; so may one that came
        // in by way of somebody who hadn't heard that its user was put out: whoever did that doesn't know that it is there.
        var mutual: [(SimulatedServer, Person)] = []
        for (server, person) in found {
            var isKnown = true
            if !server.forgotten.isEmpty || entered[room]?.contains(server.name) ?? false {
                for (other, _) in found where other.index != server.index {
                    let members = try await members(of: room, on: other)
                    if !members.contains(where: { $0.key.server == server.name && $0.value == .join }) {
                        isKnown = false
                    }
                }
            }
            if isKnown { mutual.append((server, person)) }
        }
        return mutual
    }

    /// The current state as a server has it: for each key the event.
    func state(of room: RoomID, on server: SimulatedServer) async throws -> [StateKey: EventID] {
        guard let database = server.server?.homeserver.database, let record = try await database.room(room) else {
            return [:]
        }
        return try await database.read { reader in
            let entries = try await StateTree(rows: StateRows(), room: record.nid).entries(in: record.state, reader)
            let keys = try await database.stateKeys(entries.map(\.key))
            let events = Dictionary(
                try await database.events(entries.map(\.event), reader).map { ($0.nid, $0.eventID) }
            ) { $1 }
            var state: [StateKey: EventID] = [:]
            for entry in entries { if let key = keys[entry.key] { state[key] = events[entry.event] } }
            return state
        }
    }

    /// The members as a server's own table has them.
    func members(of room: RoomID, on server: SimulatedServer) async throws -> [UserID: StoredMembership] {
        let database = server.server!.homeserver.database
        guard let record = try await database.room(room) else { return [:] }
        let rows = try await database.read { reader in
            try await reader.query(
                Statement(
                    """
                    SELECT m.user_nid, m.membership, e.flags FROM memberships m JOIN events e ON e.event_nid = m.event_nid
                    WHERE m.room_nid = $1
                    """), [record.nid.value]
            ) { row -> (UserNID, StoredMembership) in
                let isOutside = StoredEvent.Flags(rawValue: row.integer(2)).contains(.outlier)
                let membership = StoredMembership(rawValue: row.integer(1)) ?? .leave
                // An invitation whose answer got lost is one for the invited alone.
                return (UserNID(row.integer(0)), membership == .invite && isOutside ? .leave : membership)
            }
        }
        let names = try await database.users(rows.map(\.0))
        var members: [UserID: StoredMembership] = [:]
        // Who is out of it may have been in it before a server came, and isn't in its table.
        for (nid, membership) in rows where membership != .leave {
            if let name = names[nid] { members[name] = membership }
        }
        return members
    }

    /// The servers in a room, as one of them knows.
    func inhabitants(of room: RoomID, on server: SimulatedServer) async throws -> Set<ServerName> {
        guard server.server != nil else { return [] }
        return Set(try await members(of: room, on: server).filter { $0.value == .join }.map(\.key.server))
    }

    /// Has somebody on each server in each room say something: what is owed is told, and what was missed is asked for.
    func sayHealed(_ round: Int) async throws {
        for room in rooms {
            for (server, person) in try await residents(of: room) {
                guard let home = server.server else { continue }
                begin("\(person.userID) says “healed \(round)”", on: server) {
                    let event: EventID
                    do {
                        event = try await home.say("healed \(round)", in: room, by: person.requester)
                    } catch is MatrixError {
                        // Who may not speak may still have another name, which tells the others as much.
                        event = try await home.homeserver.sending.setState(
                            .member(person.userID),
                            content: ["membership": "join", "displayname": .string("healed \(round)")], in: room,
                            by: person.requester)
                    }
                    let saying = Saying(event: event, room: room, server: server.index, at: self.now)
                    self.said.append(saying)
                    self.healed.append(saying)
                }
            }
        }
        try await finishAll()
    }

    /// Why the servers don't agree on a room; nil if they do.
    func disagreement(on room: RoomID) async throws -> String? {
        let residents = try await residents(of: room)
        guard let first = residents.first else { return nil }
        let expected = try await state(of: room, on: first.server)
        let members = try await members(of: room, on: first.server)
        for (server, _) in residents.dropFirst() {
            let other = try await state(of: room, on: server)
            if other != expected {
                let keys = Set(other.keys).union(expected.keys).filter { other[$0] != expected[$0] }
                return "the state of \(room) differs between \(first.server.name) and \(server.name) at "
                    + keys.map { "\($0.type) \($0.key): \(expected[$0]?.string ?? "-"), \(other[$0]?.string ?? "-")" }
                    .sorted().joined(separator: "; ")
            }
            if try await self.members(of: room, on: server) != members {
                return "the members of \(room) differ between \(first.server.name) and \(server.name)"
            }
        }
        for saying in said where saying.room == room {
            // What was forgotten with a backup is heard of again when somebody else speaks, if anybody may.
            let isForgotten = servers[saying.server].mayHaveForgotten(saying.at)
            if isForgotten, !healed.contains(where: { $0.room == room && $0.server != saying.server }) { continue }
            var lacking: [ServerName] = []
            var isHeld = false
            var isTakenUp = false
            let isDeserted = deserted[room]?[servers[saying.server].name] != nil
            for (server, _) in residents {
                let stored = try await server.server!.homeserver.database.event(saying.event)
                if let stored, !stored.flags.contains(.rejected) {
                    isHeld = true
                    if !stored.flags.contains(.softFailed) { isTakenUp = true }
                    continue
                }
                // A server that has left begins anew when it is let in again: who wasn't there, has left since, or has forgotten it
                // with a backup, doesn't hear what it said before.
                let hasLeft = deserted[room]?[server.name].map { $0 >= saying.at } ?? false
                let wasThere = saying.hearers.contains(server.name) && !hasLeft && !server.mayHaveForgotten(saying.at)
                if !isDeserted || saying.hearers.isEmpty || wasThere { lacking.append(server.name) }
            }
            // What all have soft-failed who were told of it is referred to by nobody: who wasn't there, or has forgotten it with a backup,
            // can't hear of it.
            let knowing = residents.map(\.server).filter { !$0.mayHaveForgotten(saying.at) }.map(\.name)
            if !isTakenUp, !saying.hearers.isEmpty, saying.hearers.intersection(knowing).isDisjoint(with: lacking) {
                continue
            }
            // What none of them has was said where nobody is any more, or what was forgotten with a backup.
            if !lacking.isEmpty, isHeld {
                return "\(saying.event) of \(servers[saying.server].name) is missing at \(lacking)"
            }
        }
        return nil
    }

    /// Writes down all events of a room as its servers have them.
    func describe(_ room: RoomID) async throws {
        for (server, _) in try await residents(of: room) {
            let database = server.server!.homeserver.database
            guard let record = try await database.room(room), let version = RoomVersion.named(record.version) else {
                continue
            }
            note("\(room) on \(server.name), extremities \(record.extremities)")
            let all = Statement("SELECT \(StoredEvent.columns) FROM events WHERE room_nid = $1 ORDER BY event_nid")
            let stored = try await database.read { reader in
                try await reader.query(all, [record.nid.value]) { try StoredEvent(row: $0) }
            }
            for one in stored {
                guard let event = try? Event(receiving: one.json, version: version) else { continue }
                note(
                    "  \(one.nid) \(one.eventID.string.prefix(8)) \(event.type) \(event.stateKey ?? "") of \(event.sender) "
                        + "flags \(one.flags.rawValue) position \(one.position ?? 0) before \(one.stateBefore?.rawValue ?? -1) "
                        + "after \(event.prevEvents.map { String($0.string.prefix(8)) }) \(String(decoding: event.content.raw.prefix(60), as: UTF8.self))"
                )
            }
        }
    }

    /// Looks through the history on each server: what was said while a server wasn't in the room is fetched when somebody asks.
    func readHistory() async throws {
        for room in rooms {
            for (server, person) in try await residents(of: room) {
                guard let home = server.server else { continue }
                _ = await finish("reading back on \(server.name)") {
                    try await home.history(of: room, for: person.requester, page: 100)
                }
            }
        }
    }

    /// Has the servers come to the same, or notes that they don't.
    func agree() async throws {
        var reason: String?
        for round in 0..<10 {
            try await sayHealed(round)
            try await advance(by: round < 2 ? 5_000 : 40_000)
            reason = nil
            try await readHistory()
            for room in rooms where reason == nil { reason = try await disagreement(on: room) }
            if reason == nil { return }
        }
        if let reason {
            problem(reason)
            for room in rooms { try await describe(room) }
        }
    }
}
