import MatrixCore
import RoostTestSupport

@testable import Database
@testable import Homeserver

/// What has to hold in the end.
extension World {
    func check() async throws {
        try await checkDelivery()
        try await agree()
        try await checkSayings()
        try await checkDepartures()
        try await checkParcels()
        try await checkDevices()
        try await checkEphemera()
        try await checkQueues()
        checkTransactions()
        for server in servers { try await checkEvents(on: server) }
        for server in servers {
            let database = server.server!.homeserver.database
            for found in try await ConsistencyCheck(database).run().problems { problem("\(server.name): \(found)") }
        }
    }

    /// What was said is told to all who were in the room, however long it takes and without anybody saying more. (Who came later, or
    /// was out of it in between, hears of it when somebody speaks.)
    private func checkDelivery() async throws {
        for saying in said where !servers[saying.server].mayHaveForgotten(saying.at) {
            let residents = try await residents(of: saying.room)
            for (server, _) in residents where saying.hearers.contains(server.name) {
                if server.mayHaveForgotten(saying.at) || server.index == saying.server { continue }
                if departed[saying.room]?.contains(server.name) ?? false { continue }
                let database = server.server!.homeserver.database
                if try await database.event(saying.event) != nil { continue }
                // It may wait for others that a server keeps back.
                let isWaiting = try await database.read { reader in
                    try await reader.first(
                        Statement("SELECT 1 FROM staged_events WHERE event_key = $1"),
                        [.blob(StoredEvent.key(of: saying.event))]
                    ) { _ in true }
                }
                if isWaiting == nil {
                    problem("\(server.name) was never told of \(saying.event) of \(servers[saying.server].name)")
                }
            }
        }
    }

    /// What was acknowledged is where it was said, whatever happened.
    private func checkSayings() async throws {
        for saying in said where !servers[saying.server].mayHaveForgotten(saying.at) {
            let stored = try await servers[saying.server].server!.homeserver.database.event(saying.event)
            if stored == nil || !stored!.flags.isDisjoint(with: .hidden) {
                problem("\(saying.event) was acknowledged by \(servers[saying.server].name), which hasn't got it")
            }
        }
    }

    /// Who has left isn't in the room any more for anybody, also where nobody of theirs is there to tell. (One who lies may have
    /// states merged in which they had not left yet, and where all else is equal the event ID decides.)
    private func checkDepartures() async throws {
        if byzantine != nil { return }
        for (presence, time) in left.sorted(by: { ($0.value, $0.key.user.string) < ($1.value, $1.key.user.string) }) {
            guard let own = servers.first(where: { $0.name == presence.user.server }) else { continue }
            if unsureJoins[presence, default: 0] != 0 || own.mayForget(since: time) { continue }
            // Who comes back is told the room by those who let them in, and begins anew.
            if try await inhabitants(of: presence.room, on: own).contains(own.name) { continue }
            for (server, _) in try await residents(of: presence.room) where !server.mayForget(since: time) {
                if try await members(of: presence.room, on: server)[presence.user] == .join {
                    problem("\(server.name) believes \(presence.user) in \(presence.room), who has left it")
                }
            }
        }
    }

    /// Each message to a device comes once; never twice, and not at all only if it wasn't acknowledged or was forgotten.
    private func checkParcels() async throws {
        for server in servers {
            for person in server.people {
                for _ in 0..<3 { _ = await finish("\(person.userID) syncs last") { try await self.sync(person) } }
            }
        }
        let people = Dictionary(uniqueKeysWithValues: servers.flatMap(\.people).map { ($0.userID, $0) })
        for (name, parcel) in parcels.sorted(by: { $0.key < $1.key }) {
            guard let person = people[parcel.to] else { continue }
            let count = person.received[name] ?? 0
            // It may have come to it before, and been forgotten by the server.
            if !servers[person.home].forgotten.isEmpty { continue }
            if count > 1 { problem("\(name) came \(count) times to \(parcel.to)") }
            let isExempt = servers[parcel.from].mayHaveForgotten(parcel.at)
            if count == 0, parcel.isAcknowledged, !isExempt { problem("\(name) never came to \(parcel.to)") }
        }
    }

    /// Every server shows a user's devices as the user's own server has them.
    private func checkDevices() async throws {
        for room in rooms {
            let residents = try await residents(of: room)
            for (server, person) in residents {
                for (other, _) in residents where other.index != server.index {
                    for user in other.people {
                        let home = other.server!.homeserver
                        guard try await home.reading.joinedRooms(of: user.requester).contains(room) else { continue }
                        let own = try await home.deviceKeys.publicKeys(of: [user.userID: []])
                        let asked: JSON = [user.userID.string: []]
                        let asking = server.server!.homeserver
                        let seen = await finish("asking for the devices of \(user.userID)") {
                            try await asking.deviceKeys.query(asked.view, for: person.requester)
                        }
                        let expected = Self.devices(own, of: user.userID)
                        let found = Self.devices(seen ?? [:], of: user.userID)
                        if found != expected {
                            problem(
                                "\(server.name) knows the devices \(found) of \(user.userID), which are \(expected)")
                        }
                    }
                }
            }
        }
    }

    private static func devices(_ answer: JSON, of user: UserID) -> [String] {
        (answer["device_keys"]?[user.string]?.objectValue ?? [:]).map { entry in
            let bytes = (try? entry.value.canonical()) ?? []
            return "\(entry.key) \(Hashing.sha256(bytes).prefix(4).map { String($0) }.joined(separator: "."))"
        }.sorted()
    }

    /// What passes passes now: a receipt and that somebody types get to everybody in the room.
    private func checkEphemera() async throws {
        for room in rooms {
            let residents = try await residents(of: room)
            guard residents.count > 1, let (server, person) = residents.first, let home = server.server else {
                continue
            }
            let said = await finish("\(person.userID) says the last") {
                let event = try await home.say("the last", in: room, by: person.requester)
                try await home.homeserver.receipts.setReceipt(
                    "m.read", on: event, thread: nil, in: room, by: person.requester)
                try await home.homeserver.receipts.setTyping(60_000, in: room, by: person.requester)
                return event
            }
            guard let said else { continue }
            try await advance(by: 3_000)
            for (other, reader) in residents.dropFirst() {
                let there = other.server!
                let database = there.homeserver.database
                guard let record = try await database.room(room),
                    let nid = try await database.existingNumbers(ofUsers: [person.userID])[person.userID]
                else { continue }
                let receipts = try await database.read { try await database.receipts(in: record.nid, of: nid, $0) }
                if !receipts.contains(where: { $0.eventID == said.string }) {
                    problem("\(other.name) hasn't heard of the receipt of \(person.userID) in \(room)")
                }
                let answer = await finish("\(reader.userID) looks who types") {
                    try await there.sync(reader.requester, fullState: true)
                }
                let ephemeral = answer?["rooms"]?["join"]?[room.string]?["ephemeral"]?["events"]
                let typing = ephemeral?.elements.first { $0["type"]?.isString("m.typing") == true }
                let users = typing?["content"]?["user_ids"]?.elements.map { $0.string } ?? []
                if !users.contains(person.userID.string) {
                    problem("\(other.name) hasn't heard that \(person.userID) types in \(room)")
                }
            }
        }
    }

    /// Nothing waits any more, and when nothing happens nobody says anything.
    private func checkQueues() async throws {
        // What the one who lies keeps back, or a restored server has forgotten, is waited for, for an hour; that isn't simulated each
        // time.
        let mayWait = byzantine != nil || emphasis == .restores
        let isWaiting = mayWait && seed % 4 != 0
        try await advance(by: !mayWait || isWaiting ? 120_000 : 4_200_000)
        let before = network.exchanges.count
        try await advance(by: isWaiting ? 0 : 120_000)
        let later = network.exchanges.dropFirst(before)
        if !later.isEmpty {
            problem(
                "\(later.count) requests are made although nothing happens, such as \(later.first!.method) "
                    + "\(later.first!.target) from \(later.first!.from) to \(later.first!.to)")
        }
        for server in servers {
            let database = server.server!.homeserver.database
            // What waits may be tried again at any time, and then has words for the index.
            let settled = isWaiting ? [] : ["staged_events", "search_queue"]
            for table in settled + ["destinations", "outgoing_to_device"] {
                let count = try await database.read { reader in
                    try await reader.first(Statement("SELECT count(*) FROM \(table)"), []) { $0.integer(0) }
                }
                if count != 0 { problem("\(server.name) has \(count ?? 0) rows left in \(table)") }
            }
            let queues = server.server!.homeserver.federation.sender.waiting
            if !queues.isEmpty { problem("\(server.name) still has something for \(queues)") }
        }
        let most = 3_000 + 400 * servers.count * servers.count * rooms.count
        if network.exchanges.count > most {
            problem("\(network.exchanges.count) requests were made, more than \(most)")
        }
    }

    /// A transaction's ID means one content.
    private func checkTransactions() {
        var contents: [String: [UInt8]] = [:]
        for exchange in network.exchanges where exchange.target.hasPrefix("/_matrix/federation/v1/send/") {
            let key = "\(exchange.from) \(exchange.to) \(exchange.target)"
            if let known = contents[key], known != exchange.body {
                problem("\(exchange.from) sends two different transactions as \(exchange.target) to \(exchange.to)")
            }
            contents[key] = exchange.body
        }
    }
}
