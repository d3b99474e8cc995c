import HomeserverHTTP
import MatrixCore
import RoostTestSupport
import Synchronization

@testable import Homeserver

/// A server in a room of the others that lies: it forks the room, sends to one what it keeps from another, forges events in transactions
/// and in answers, and sends events that are none. Nothing of what it forges may be taken up by anybody, and the others have to agree
/// among themselves.
final class ByzantineServer: @unchecked Sendable {
    // Used on the simulation's thread alone.
    private unowned let world: World
    private let hostile: HostileServer
    private let room: RoomID
    private var place: HostileServer.Place {
        didSet {
            let own = place.state[.member(user)]
            if own?.content["membership"]?.isString("join") == true { inside = place }
        }
    }
    /// What it knew of the room when it came in, and when it was last in it.
    private let entry: HostileServer.Place
    private var inside: HostileServer.Place
    /// Events of the room that it has heard of or made, oldest first: what it forks and answers from.
    private var heard: [Event] = []
    private var made = 0
    /// Events that it sent to somebody and shows to nobody who asks.
    private var withheld: Set<EventID> = []
    /// What it says that the state before its own events was. It says the same to everybody: to believe a server in the room what
    /// the state before its event was is all that the protocol lets others do, so different tales would make them differ by right.
    private var tales: [EventID: [Event]] = [:]
    let user: UserID
    /// Events that nobody may take for true.
    private(set) var forgeries: Set<EventID> = []
    /// Events that came to a server which was in the room and knew that their sender had been put out.
    private(set) var evasions: Set<Evasion> = []
    struct Evasion: Hashable {
        let event: EventID
        let server: Int
    }
    var name: ServerName { hostile.name }
    let verifyKey: VerifyKey

    /// Joins the world's first room.
    init?(in world: World) async throws {
        self.world = world
        hostile = HostileServer("evil.example", on: world.network, clock: world.clock)
        user = hostile.user("mallory")
        room = world.rooms[0]
        guard let key = hostile.key.verifyKey else { return nil }
        verifyKey = key
        let (hostile, user, room, server) = (hostile, user, room, world.servers[0].name)
        guard let place = await world.finish("mallory joins", { try await hostile.join(room, as: user, at: server) })
        else { return nil }
        self.place = place
        entry = place
        inside = place
        heard = [place.tip]
        world.network.forge { [unowned self] request in
            request.destination == self.name ? self.answer(request) : nil
        }
    }

    private func message(_ text: String) -> JSON { ["msgtype": "m.text", "body": .string(text)] }

    // MARK: - What it sends

    /// Sends something, to some.
    func act() {
        let kind = world.number(0..<16)
        let targets = world.servers.filter { $0.server != nil && world.chance(60) }
        var events: [JSON] = []
        do {
            made += 1
            switch kind {
            case 0..<3:
                // As any server would; but to some, and so it forks.
                events = [try take(try event("m.room.message", content: message("by mallory \(made)"))).root.json]
            case 3:
                let old = world.pick(heard)
                let fork = try event("m.room.message", content: message("fork \(made)"), previous: [old.eventID])
                events = [try take(fork).root.json]
            case 4:
                // Upon what nobody gets to see.
                let hidden = try event("m.room.message", content: message("hidden \(made)"))
                withheld.insert(hidden.eventID)
                let shown = try event("m.room.message", content: message("upon \(made)"), previous: [hidden.eventID])
                heard.append(shown)
                tales[shown.eventID] = place.state.values.sorted { $0.eventID < $1.eventID }
                events = [shown.root.json]
            case 5: events = try forged().map(\.root.json)
            case 6, 7: events = try usurping().map { forge($0).root.json }
            case 8:
                var large = try event("m.room.message", content: message(String(repeating: "x", count: 50_000))).root
                    .json
                large["content"] = message(String(repeating: "x", count: 70_000))
                events = [large, ["type": "nonsense", "room_id": .string(room.string)]]
            case 9:
                // One whose content was changed after it had been signed is redacted by whoever takes it.
                let honest = try event("m.room.message", content: message("signed \(made)"))
                var changed = honest.root.json
                changed["content"] = message("changed")
                heard.append(honest)
                events = [changed]
            case 10:
                let member = try event(
                    "m.room.member", stateKey: user.string,
                    content: ["membership": "join", "displayname": .string("mallory \(made)")])
                place.state[.member(user)] = member
                events = [try take(member).root.json]
            case 11: events = [forge(try unauthorised()).root.json]
            case 12: events = [forge(try early()).root.json]
            case 13, 14: events = [try evading().root.json]
            default:
                send([], edus: edus(), to: targets)
                return
            }
        } catch {
            // An event that can't be signed is none that it can send.
            world.note("evil.example can't make that: \(error)")
            return
        }
        send(events, edus: [], to: targets)
    }

    private func send(_ events: [JSON], edus: [JSON], to targets: [SimulatedServer]) {
        let id = "evil\(made)"
        let hostile = hostile
        let version = place.version
        let ids = events.compactMap { try? Event(receiving: $0.encoded(), version: version).eventID }
        for target in targets {
            world.note("evil.example sends \(id) with \(ids) and \(edus.count) EDUs to \(target.name)")
            Task {
                let before = try? await self.exclusion(on: target)
                let isTaken = (try? await hostile.send(events, edus: edus, id: id, to: target.name))?.status == 200
                let after = try? await self.exclusion(on: target)
                guard isTaken, let before, let after, before == after else { return }
                for event in ids { self.evasions.insert(Evasion(event: event, server: target.index)) }
            }
        }
    }

    /// The event by which a server that is in the room knows that the user is kept out of it; nil if it doesn't. (Who isn't in the room
    /// may be told later, by those who are, what they have taken for the room's history.)
    private func exclusion(on server: SimulatedServer) async throws -> EventID? {
        guard let database = server.server?.homeserver.database, let nid = try await database.room(room)?.nid,
            try await database.joinedMembers(of: try await database.number(ofServer: server.name), in: nid) > 0,
            let id = try await world.state(of: room, on: server)[.member(user)],
            let stored = try await database.event(id)
        else { return nil }
        let event = try Event(receiving: stored.json, version: place.version)
        return event.content["membership"]?.isString("ban") == true ? id : nil
    }

    private func event(
        _ type: String, stateKey: String? = nil, content: JSON, by sender: UserID? = nil, previous: [EventID]? = nil,
        key: SigningKey? = nil, as server: ServerName? = nil
    ) throws -> Event {
        try hostile.event(
            type, stateKey: stateKey, content: content, by: sender ?? user, in: place, previous: previous, key: key,
            as: server)
    }

    /// One that it stands for.
    private func take(_ event: Event) -> Event {
        heard.append(event)
        place.tip = event
        return event
    }

    private func forge(_ event: Event) -> Event {
        forgeries.insert(event.eventID)
        return event
    }

    /// In others' names: signed by itself, or by a key that isn't theirs.
    private func forged() throws -> [Event] {
        let victim = world.servers[0].people[0].userID
        let wrong = SigningKey(seed: [UInt8](repeating: 9, count: 32), version: "evil")
        return [
            forge(try event("m.room.message", content: message("forged \(made)"), by: victim)),
            forge(
                try event(
                    "m.room.power_levels", stateKey: "", content: ["users": [user.string: 100]], by: victim, key: wrong,
                    as: victim.server)),
            forge(try event("m.room.message", content: message("badly signed \(made)"), key: wrong)),
        ]
    }

    /// In its own name, without the right to it.
    private func usurping() throws -> [Event] {
        let victim = world.servers[0].people[0].userID
        return [
            try event("m.room.member", stateKey: victim.string, content: ["membership": "ban"]),
            try event(
                "m.room.power_levels", stateKey: "",
                content: ["users": [user.string: 100], "ban": 0, "state_default": 0]),
            try event("m.room.join_rules", stateKey: "", content: ["join_rule": "invite"]),
        ]
    }

    /// Its own, but it doesn't name what would give it the right.
    private func unauthorised() throws -> Event {
        try hostile.event(
            "m.room.message", content: message("without right \(made)"), by: user, in: place,
            auth: place.auth(room.createEventID == nil ? [.create, .powerLevels] : [.powerLevels]))
    }

    /// As if sent before it came in: what it names gives it the right, where it claims to have said it, it had none.
    private func early() throws -> Event {
        try hostile.event(
            "m.room.message", content: message("early \(made)"), by: user, in: entry, previous: entry.tip.prevEvents)
    }

    /// As if it had not heard that it was put out since. Nobody can know better but who has heard of that.
    private func evading() throws -> Event {
        let event = try hostile.event("m.room.message", content: message("evading \(made)"), by: user, in: inside)
        heard.append(event)
        return event
    }

    /// In others' names.
    private func edus() -> [JSON] {
        let victim = world.servers[0].people[0].userID.string
        return [
            [
                "edu_type": "m.typing",
                "content": ["room_id": .string(room.string), "user_id": .string(victim), "typing": true],
            ],
            [
                "edu_type": "m.direct_to_device",
                "content": [
                    "sender": .string(victim), "type": "m.forged", "message_id": .string("forged \(made)"),
                    "messages": [victim: ["*": ["body": "forged parcel"]]],
                ],
            ],
        ]
    }

    // MARK: - What it answers

    private func answer(_ request: ServerRequest) -> ServerResponse? {
        let path = request.target.split(separator: "?")[0]
        let body = (request.body.flatMap { try? JSONDocument(parsing: $0) })?.root
        if path.hasPrefix("/_matrix/federation/v1/send/") {
            for view in body?["pdus"]?.elements.map({ $0 }) ?? [] where view["room_id"]?.isString(room.string) == true {
                guard let event = try? Event(receiving: Array(view.raw), version: place.version) else { continue }
                if let key = event.stateMapKey { place.state[key] = event }
                _ = take(event)
            }
            return ServerResponse(status: 200, body: JSON.object(["pdus": [:]]).encoded())
        }
        let lies = (try? forged() + usurping().map(forge)) ?? []
        let shown = heard.filter { !withheld.contains($0.eventID) }
        func json(_ events: [Event]) -> JSON { .array(events.map(\.root.json)) }
        let answer: JSON
        if path.hasPrefix("/_matrix/federation/v1/get_missing_events/") {
            answer = ["events": json(lies + shown.suffix(5))]
        } else if path.hasPrefix("/_matrix/federation/v1/backfill/") {
            answer = ["origin": .string(name.string), "origin_server_ts": 1, "pdus": json(lies + shown.suffix(20))]
        } else if path.hasPrefix("/_matrix/federation/v1/state"), let tale = tale(in: request.target) {
            let isShort = path.hasPrefix("/_matrix/federation/v1/state_ids/")
            func list(_ events: [Event]) -> JSON {
                isShort ? .array(events.map { .string($0.eventID.string) }) : json(events)
            }
            answer = [
                isShort ? "pdu_ids" : "pdus": list(tale + lies), isShort ? "auth_chain_ids" : "auth_chain": list(lies),
            ]
        } else if path.hasPrefix("/_matrix/federation/v1/event_auth/") {
            answer = ["auth_chain": json(lies)]
        } else if path.hasPrefix("/_matrix/federation/v1/event/") {
            // Another than was asked for.
            answer = ["origin": .string(name.string), "origin_server_ts": 1, "pdus": json(Array(lies.prefix(1)))]
        } else {
            return path == "/_matrix/key/v2/server" ? nil : ServerResponse(status: 404, body: Array("{}".utf8))
        }
        return ServerResponse(status: 200, body: answer.encoded())
    }

    private func tale(in target: String) -> [Event]? {
        tales.first { target.hasSuffix(HostileServer.quote($0.key.string)) }?.value
    }
}
