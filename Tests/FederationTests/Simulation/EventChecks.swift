import MatrixCore
import RoostTestSupport

@testable import Database
@testable import Homeserver

/// Whether a server shows only what it may: events signed by their senders' servers, whose senders had the right to them by the
/// events that they name, by the state before them, and by what was current when they came.
extension World {
    func checkEvents(on server: SimulatedServer) async throws {
        let database = server.server!.homeserver.database
        for room in rooms {
            guard let record = try await database.room(room), let version = RoomVersion.named(record.version) else {
                continue
            }
            let current = Set(try await state(of: room, on: server).values)
            let reasons = try await database.read { reader in
                var check = try await EventCheck(record, version, database, reader)
                return try await check.run(current: current, keys: self.verifyKeys, server, self)
            }
            for reason in reasons { problem("\(server.name) has \(reason)") }
            if !reasons.isEmpty { try await describe(room) }
        }
    }

    private var verifyKeys: [ServerName: VerifyKey] {
        var keys: [ServerName: VerifyKey] = [:]
        for other in servers { keys[other.name] = other.server!.homeserver.signingKeys.current.verifyKey }
        if let byzantine { keys[byzantine.name] = byzantine.verifyKey }
        return keys
    }
}

/// One room on one server.
private struct EventCheck {
    private let room: RoomRecord
    private let version: RoomVersion
    private let database: Database
    private let reader: any Reader
    private let tree: StateTree
    private let stored: [StoredEvent]
    private let byNumber: [EventNID: StoredEvent]
    private var parsed: [EventNID: Event] = [:]
    /// The numbers of keys of the state.
    private var numbers: [StateKey: StateKeyNID] = [:]

    private static let all = Statement(
        "SELECT \(StoredEvent.columns) FROM events WHERE room_nid = $1 ORDER BY event_nid")

    init(_ room: RoomRecord, _ version: RoomVersion, _ database: Database, _ reader: any Reader) async throws {
        self.room = room
        self.version = version
        self.database = database
        self.reader = reader
        tree = StateTree(rows: StateRows(), room: room.nid)
        stored = try await reader.query(Self.all, [room.nid.value]) { try StoredEvent(row: $0) }
        byNumber = Dictionary(uniqueKeysWithValues: stored.map { ($0.nid, $0) })
    }

    private mutating func event(_ one: StoredEvent) throws -> Event {
        if let known = parsed[one.nid] { return known }
        let event = try Event(receiving: one.json, version: version)
        parsed[one.nid] = event
        return event
    }

    /// What is wrong.
    mutating func run(
        current: Set<EventID>, keys: [ServerName: VerifyKey], _ server: SimulatedServer, _ world: World
    ) async throws -> [String] {
        var problems: [String] = []
        for one in stored where one.flags.isDisjoint(with: .hidden) || current.contains(one.eventID) {
            let event = try event(one)
            let sender = event.sender.server
            if let key = keys[sender], !world.verified.contains(one.json),
                !event.verify(signatureOf: sender, with: key)
            {
                problems.append("\(one.eventID), which \(sender) never signed")
            } else {
                world.verified.insert(one.json)
            }
            if one.flags.contains(.rejected) { problems.append("the rejected \(one.eventID) in its state") }
            problems += try refusalByAuthEvents(one, event)
            if let before = one.stateBefore, let reason = try await refusal(event, in: before) {
                problems.append("\(one.eventID) of \(event.sender), which the state before it forbids: \(reason)")
            }
            // Before a room's members are known, who isn't is taken to be what the event itself names.
            if let position = one.position, position > 0, !isEntry(event, into: server),
                let reason = try await refusal(
                    event, in: try await database.state(of: room.nid, at: position - 1, reader), learning: one.auth)
            {
                problems.append("\(one.eventID) of \(event.sender), which nothing allowed when it came: \(reason)")
            }
            guard let byzantine = world.byzantine else { continue }
            // What others in the room have taken is part of its history, for those who fetch that later.
            if byzantine.evasions.contains(.init(event: one.eventID, server: server.index)),
                one.flags.isDisjoint(with: .hidden), (one.position ?? 0) > 0
            {
                problems.append("\(one.eventID) in a timeline, sent by somebody who had been put out before")
            }
            if byzantine.forgeries.contains(one.eventID) {
                problems.append("the forgery \(one.eventID) in its timeline or state")
            }
        }
        return problems
    }

    /// Where the room begins for a server, nothing is current but what its own join was sent upon.
    private func isEntry(_ event: Event, into server: SimulatedServer) -> Bool {
        event.type == "m.room.create"
            || event.type == "m.room.member" && event.sender.server == server.name
                && event.content["membership"]?.isString("join") == true
    }

    private mutating func refusalByAuthEvents(_ one: StoredEvent, _ event: Event) throws -> [String] {
        var problems: [String] = []
        var state: [StateKey: Event] = [:]
        for number in one.auth {
            guard let auth = byNumber[number] else { continue }
            if auth.flags.contains(.rejected) {
                problems.append("\(one.eventID), which rests on a rejected event")
            }
            let parsed = try self.event(auth)
            if let key = parsed.stateMapKey { state[key] = parsed }
        }
        if let id = room.roomID.createEventID, let create = stored.first(where: { $0.eventID == id }) {
            state[.create] = try self.event(create)
        }
        do { try Authorization.check(event, state: { state[$0] }) } catch {
            problems.append("\(one.eventID) of \(event.sender), who had no right to it: \(error.reason)")
        }
        return problems
    }

    /// Why a state doesn't allow an event.
    ///
    /// - Parameter auth: events from which members are taken of whom the state says nothing.
    private mutating func refusal(
        _ event: Event, in state: StateNID, learning auth: [EventNID] = []
    ) async throws -> String? {
        var needed = Authorization.requiredStateKeys(for: event)
        if event.type != "m.room.create", !needed.contains(.create) { needed.append(.create) }
        let unknown = needed.filter { numbers[$0] == nil }
        if !unknown.isEmpty { numbers.merge(try await database.existingNumbers(ofStateKeys: unknown)) { $1 } }
        var events: [StateKey: Event] = [:]
        for number in auth {
            guard let named = byNumber[number], let key = try self.event(named).stateMapKey,
                key.type == "m.room.member"
            else { continue }
            events[key] = try self.event(named)
        }
        for key in needed {
            guard let number = numbers[key], let nid = try await tree.event(for: number, in: state, reader),
                let holder = byNumber[nid]
            else { continue }
            events[key] = try self.event(holder)
        }
        do { try Authorization.check(event, state: { events[$0] }) } catch { return error.reason }
        return nil
    }
}
