import MatrixCore
import RoostTestSupport

@testable import Homeserver

/// What people do: they talk, come and go, and quarrel. What the rules don't allow is refused, and that is as good.
extension World {
    private typealias Deed = (weight: Int, begin: @Sendable (World, SimulatedServer, Person) -> Void)

    /// One of the things that people do, by somebody whose server is there.
    func act() {
        let there = servers.filter { $0.server != nil && !$0.hasCrashed }
        if there.isEmpty { return }
        let server = pick(there)
        let person = pick(server.people)
        let deeds = Self.deeds + (Self.emphasised[emphasis] ?? [])
        var place = number(0..<deeds.reduce(0) { $0 + $1.weight })
        for deed in deeds {
            place -= deed.weight
            if place < 0 { return deed.begin(self, server, person) }
        }
    }

    private static let deeds: [Deed] = [
        (16, { $0.say($1, $2) }), (4, { $0.setTopic($1, $2) }),
        (5, { $0.join($1, $2, $0.pick($0.rooms), via: $0.servers.map(\.name)) }),
        (2, { $0.leave($1, $2, $0.pick($0.rooms)) }),
        (2, { $0.remove(.kick, $1, $2) }), (2, { $0.remove(.ban, $1, $2) }), (2, { $0.remove(.unban, $1, $2) }),
        (2, { $0.invite($1, $2) }), (4, { $0.setPower($1, $2) }), (2, { $0.redact($1, $2) }),
        (1, { $0.upgrade($1, $2) }), (1, { world, server, _ in world.depart(server, from: world.pick(world.rooms)) }),
        (1, { world, server, _ in world.comeBack(server, to: world.pick(world.rooms)) }),
        (2, { $0.read($1, $2) }), (2, { $0.type($1, $2) }), (5, { $0.sendToDevice($1, $2) }), (3, { $0.sync($1, $2) }),
        (5, { $0.changeDevices($1, $2) }), (5, { $0.askForDevices($1, $2) }),
    ]

    private static let emphasised: [Emphasis: [Deed]] = [
        .restores: [
            (10, { world, server, person in world.mark(server, person, in: world.pick(world.rooms)) }),
            (10, { $0.changeDevices($1, $2) }), (10, { $0.askForDevices($1, $2) }),
        ],
        .returns: [(20, { world, server, _ in world.comeBack(server, to: world.pick(world.rooms)) })],
    ]

    private func anybody() -> UserID {
        if let byzantine, chance(15) { return byzantine.user }
        return pick(pick(servers).people).userID
    }

    private func say(_ server: SimulatedServer, _ person: Person) {
        let home = server.server!
        let room = pick(rooms)
        begin("\(person.userID) says something in \(room)", on: server) {
            let event = try await home.say("\(self.said.count)", in: room, by: person.requester)
            var saying = Saying(event: event, room: room, server: server.index, at: self.now)
            saying.hearers = try await self.inhabitants(of: room, on: server)
            self.said.append(saying)
        }
    }

    private func setTopic(_ server: SimulatedServer, _ person: Person, in room: RoomID? = nil) {
        let home = server.server!.homeserver
        let room = room ?? pick(rooms)
        let topic = "topic \(number(0..<1_000))"
        begin("\(person.userID) sets \(topic) of \(room)", on: server) {
            _ = try await home.sending.setState(
                StateKey("m.room.topic"), content: ["topic": .string(topic)], in: room, by: person.requester)
        }
    }

    /// Sets a part of a room's state that nobody sets again: who misses it once misses it for good.
    func mark(_ server: SimulatedServer, _ person: Person, in room: RoomID) {
        let home = server.server!.homeserver
        marks += 1
        let key = StateKey("org.example.mark", "\(marks)")
        begin("\(person.userID) sets \(key) of \(room)", on: server) {
            _ = try await home.sending.setState(key, content: [:], in: room, by: person.requester)
        }
    }

    func letEverybodyMark(_ room: RoomID, as person: Person, on server: SimulatedServer) async throws {
        try await setPowerLevels(of: room, by: person.requester, on: server) { levels in
            var events = levels["events"] ?? [:]
            events["org.example.mark"] = 0
            levels["events"] = events
        }
    }

    private func setPowerLevels(
        of room: RoomID, by requester: Requester, on server: SimulatedServer, _ change: (inout JSON) -> Void
    ) async throws {
        guard let home = server.server?.homeserver else { return }
        let state = try await home.reading.state(of: room, key: .powerLevels, wholeEvent: false, for: requester)
        var levels = try JSONDocument(parsing: state).root.json
        change(&levels)
        _ = try await home.sending.setState(.powerLevels, content: levels, in: room, by: requester)
    }

    private func join(_ server: SimulatedServer, _ person: Person, _ room: RoomID, via: [ServerName]) {
        let home = server.server!.homeserver
        let presence = Presence(room: room, user: person.userID)
        left[presence] = nil
        unsureJoins[presence, default: 0] += 1
        begin("\(person.userID) joins \(room)", on: server) {
            if try await !self.inhabitants(of: room, on: server).contains(server.name) {
                self.entered[room, default: []].insert(server.name)
            }
            try await home.memberships.join(room, reason: nil, via: via, by: person.requester)
            self.unsureJoins[presence, default: 0] -= 1
        }
    }

    private func leave(_ server: SimulatedServer, _ person: Person, _ room: RoomID) {
        guard let home = server.server?.homeserver, !server.hasCrashed else { return }
        begin("\(person.userID) leaves \(room)", on: server) {
            self.departed[room, default: []].insert(server.name)
            try await home.memberships.leave(room, reason: nil, by: person.requester)
            let presence = Presence(room: room, user: person.userID)
            if try await !self.inhabitants(of: room, on: server).contains(server.name) {
                self.deserted[room, default: [:]][server.name] = self.now
            }
            // A join that nobody has heard of may have come to others, and may come later than the leave.
            if self.unsureJoins[presence, default: 0] == 0 { self.left[presence] = self.now }
        }
    }

    /// Has everybody on a server leave a room: nobody there hears any more of what becomes of it.
    func depart(_ server: SimulatedServer, from room: RoomID) {
        for person in server.people { leave(server, person, room) }
    }

    /// Has all people of a server leave a room, and soon come back at once, by way of servers each of which has something of its own to
    /// tell of it. (Where one of those hasn't heard that they left, they begin anew, and may never learn what follows from that.)
    private func comeBack(_ server: SimulatedServer, to room: RoomID) {
        depart(server, from: room)
        _ = clock.surroundings.after(Int64(number(1_000..<8_000))) { [unowned self] in
            Task { try await self.comeBackTogether(server, to: room) }
        }
    }

    private func comeBackTogether(_ server: SimulatedServer, to room: RoomID) async throws {
        func isThere(_ one: SimulatedServer) -> Bool { one.server != nil && !one.hasCrashed && !isOver }
        let others = servers.filter { $0.index != server.index && isThere($0) }
        for one in others + [server] where isThere(one) {
            if try await inhabitants(of: room, on: one).contains(server.name) { return }
        }
        guard isThere(server) else { return }
        deserted[room, default: [:]][server.name] = now
        if emphasis == .returns { estrange(others) }
        for other in others where isThere(other) {
            let person = pick(other.people)
            if emphasis == .returns { mark(other, person, in: room) } else { setTopic(other, person, in: room) }
        }
        for (index, person) in server.people.enumerated() {
            let names = others.map(\.name)
            let first = names.isEmpty ? 0 : index % names.count
            join(server, person, room, via: Array(names[first...] + names[..<first]))
        }
    }

    /// Has servers not hear of one another for some seconds.
    private func estrange(_ servers: [SimulatedServer]) {
        for one in servers {
            for other in servers where other.index != one.index { network.cut(from: one.name, to: other.name) }
        }
        _ = clock.surroundings.after(Int64(number(2_000..<8_000))) { [unowned self] in network.mendAll() }
    }

    /// Has whoever made the first room ban somebody.
    func putOut(_ user: UserID) {
        let server = servers[0]
        guard let home = server.server?.homeserver, !server.hasCrashed else { return }
        begin("\(user) is put out", on: server) {
            try await home.memberships.remove(
                user, from: self.rooms[0], .ban, reason: nil, by: server.people[0].requester)
        }
    }

    private func remove(_ removal: MembershipService.Removal, _ server: SimulatedServer, _ person: Person) {
        let home = server.server!.homeserver
        let room = pick(rooms)
        let target = anybody()
        begin("\(person.userID) does a \(removal) of \(target) in \(room)", on: server) {
            self.departed[room, default: []].insert(target.server)
            try await home.memberships.remove(target, from: room, removal, reason: nil, by: person.requester)
        }
    }

    private func invite(_ server: SimulatedServer, _ person: Person) {
        let home = server.server!.homeserver
        let room = pick(rooms)
        let target = anybody()
        begin("\(person.userID) invites \(target) to \(room)", on: server) {
            try await home.memberships.invite(target, to: room, reason: nil, by: person.requester)
        }
    }

    private func setPower(_ server: SimulatedServer, _ person: Person) {
        let room = pick(rooms)
        // Never the one who lies: what that one does by right is no lie.
        let target = pick(pick(servers).people).userID
        let level = pick([0, 50, 50, 100, 100])
        begin("\(person.userID) gives \(target) \(level) in \(room)", on: server) {
            try await self.setPowerLevels(of: room, by: person.requester, on: server) { levels in
                var users = levels["users"] ?? [:]
                users[target.string] = .integer(Int64(level))
                levels["users"] = users
            }
        }
    }

    private func redact(_ server: SimulatedServer, _ person: Person) {
        if said.isEmpty { return }
        let home = server.server!.homeserver
        let saying = pick(said)
        let transaction = "redaction \(number(0..<1 << 30))"
        begin("\(person.userID) redacts \(saying.event)", on: server) {
            _ = try await home.sending.send(
                "m.room.redaction", content: [:], to: saying.room, transactionID: transaction, redacts: saying.event,
                by: person.requester)
        }
    }

    private func upgrade(_ server: SimulatedServer, _ person: Person) {
        if rooms.count > 2 { return }
        let home = server.server!.homeserver
        let room = pick(rooms)
        let version = pick(["10", "11", "12"])
        begin("\(person.userID) upgrades \(room) to \(version)", on: server) {
            let new = try await home.creation.upgrade(room, to: version, additionalCreators: [], by: person.requester)
            self.note("the new room is \(new)")
            self.rooms.append(new)
        }
    }

    private func read(_ server: SimulatedServer, _ person: Person) {
        if said.isEmpty { return }
        let home = server.server!.homeserver
        let saying = pick(said)
        begin("\(person.userID) has read \(saying.event)", on: server) {
            try await home.receipts.setReceipt(
                "m.read", on: saying.event, thread: nil, in: saying.room, by: person.requester)
        }
    }

    private func type(_ server: SimulatedServer, _ person: Person) {
        let home = server.server!.homeserver
        let room = pick(rooms)
        begin("\(person.userID) types in \(room)", on: server) {
            try await home.receipts.setTyping(10_000, in: room, by: person.requester)
        }
    }

    private func sendToDevice(_ server: SimulatedServer, _ person: Person) {
        let home = server.server!.homeserver
        let target = pick(pick(servers).people).userID
        let device = chance(50) ? "*" : "MAIN"
        let name = "parcel \(parcels.count)"
        parcels[name] = Parcel(from: server.index, to: target, at: now)
        begin("\(person.userID) sends \(name) to \(device) of \(target)", on: server) {
            let messages: JSON = [target.string: [device: ["body": .string(name)]]]
            try await home.toDevice.send(
                "org.example.parcel", messages.view, transactionID: name, by: person.requester)
            self.parcels[name]?.isAcknowledged = true
        }
    }

    private func sync(_ server: SimulatedServer, _ person: Person) {
        begin("\(person.userID) syncs", on: server) { try await self.sync(person) }
    }

    /// Syncs a person's device once, and counts the messages that came to it.
    func sync(_ person: Person) async throws {
        guard let home = servers[person.home].server else { return }
        let answer = try await home.sync(person.requester, since: person.token)
        person.token = answer["next_batch"]?.string
        for event in answer["to_device"]?["events"]?.elements.map({ $0 }) ?? [] {
            if let name = event["content"]?["body"]?.string { person.received[name, default: 0] += 1 }
        }
    }

    /// What was asked for once is kept, until its server says that it is another now.
    func askForDevices(_ server: SimulatedServer, _ person: Person) {
        let home = server.server!.homeserver
        let users = servers.flatMap(\.people).map(\.userID)
        begin("\(person.userID) asks for everybody's devices", on: server) {
            let asked = JSON.object(JSONObject(users.map { ($0.string, []) }))
            _ = try await home.deviceKeys.query(asked.view, for: person.requester)
        }
    }

    func changeDevices(_ server: SimulatedServer, _ person: Person) {
        let home = server.server!.homeserver
        let requester = person.requester
        let seed = UInt64(number(0..<1 << 30))
        switch number(0..<3) {
        case 0:
            begin("\(person.userID) names a device", on: server) {
                try await home.devices.rename("MAIN", to: "name \(seed)", of: requester)
            }
        case 1:
            begin("\(person.userID) has new keys", on: server) {
                let keys = SigningTestKey(seed: seed).deviceKeys(of: requester.userID.string, "MAIN")
                let body: JSON = ["device_keys": keys]
                _ = try await home.deviceKeys.upload(body.view, for: requester)
            }
        default:
            begin("\(person.userID) has another device", on: server) {
                let device = "D\(seed % 3)"
                _ = try await home.accounts.begin(
                    requester.nid, requester.userID, .init(deviceID: device, displayName: "another"))
                let keys = SigningTestKey(seed: seed).deviceKeys(of: requester.userID.string, device)
                let body: JSON = ["device_keys": keys]
                _ = try await home.deviceKeys.upload(
                    body.view, for: Requester(nid: requester.nid, userID: requester.userID, deviceID: device))
            }
        }
    }
}
