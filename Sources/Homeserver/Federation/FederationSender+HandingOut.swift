import Database
import MatrixCore

/// From what was committed to the queues: which servers hear of which event, and of whose devices.
extension FederationSender {
    /// Hands what was committed out to the queues, as far as it was noted: what is known here of rooms is as new.
    func handOut() async {
        do {
            while let range = state.withLock({ $0.toBeHandedOut }) {
                guard try await handOut(after: range.lowerBound, upTo: range.upperBound) else { return }
            }
        } catch {
            logger.error("telling other servers is delayed", metadata: ["reason": "\(error)"])
        }
    }

    /// - Returns: whether there may be more.
    private func handOut(after: Int64, upTo: Int64) async throws -> Bool {
        var events = try await database.readOnce {
            try await self.database.outgoingEvents(after: after, upTo: upTo, limit: Self.pageSize, $0)
        }
        var end = events.count < Self.pageSize ? upTo : events[events.count - 1].position
        let users = try await changedUsers(after: after, upTo: end)
        if users.count == Self.pageSize {
            end = users[users.count - 1].position
            events.removeAll { $0.position > end }
        }
        var destinations: [EventNID: [ServerNID]] = [:]
        for event in events { destinations[event.event] = try await self.destinations(of: event) }
        let names = try await database.servers(Array(Set(destinations.values.flatMap { $0 })))
        let updates = try await deviceUpdates(of: users)
        var concerned = Set<ServerName>()
        state.withLock { state in
            guard state.handedOut == after else { return }
            for event in events {
                for server in destinations[event.event] ?? [] {
                    guard let name = names[server] else { continue }
                    state.queues[name, default: FederationQueue()].add(event)
                    concerned.insert(name)
                }
            }
            for update in updates {
                for name in update.servers {
                    state.queues[name, default: FederationQueue()].add(update.edu)
                    concerned.insert(name)
                }
            }
            state.handedOut = end
        }
        concerned.formUnion(try await noteToDevice())
        for server in concerned.sorted() { begin(server) }
        return true
    }

    /// Those of this server's users whose devices have changed. Hardly ever there are any.
    private func changedUsers(after: Int64, upTo: Int64) async throws -> [(user: UserNID, position: Int64)] {
        if state.withLock({ $0.devicesChanged <= after }) { return [] }
        return try await database.readOnce {
            try await self.database.localUsersWithChangedDevices(after: after, upTo: upTo, limit: Self.pageSize, $0)
        }
    }

    /// Notes for which servers messages to devices wait, if any were written.
    private func noteToDevice() async throws -> [ServerName] {
        let isNew = state.withLock { state in
            defer { state.hasNewToDevice = false }
            return state.hasNewToDevice
        }
        guard isNew else { return [] }
        do {
            let names = try await database.servers(try await database.serversAwaitingToDevice()).values.sorted()
            state.withLock { state in
                for name in names { state.queues[name, default: FederationQueue()].hasToDevice = true }
            }
            return names
        } catch {
            state.withLock { $0.hasNewToDevice = true }
            throw error
        }
    }

    /// The servers that hear of an event: those in its room, and for somebody who is out of it now theirs.
    func destinations(of outgoing: Database.OutgoingEvent) async throws -> [ServerNID] {
        var servers = try await rooms.others(in: outgoing.room)
        // In the name of another server's user, who had invited a third-party identifier.
        var isMadeHere = false
        guard let stored = try await database.events([outgoing.event]).first else { return [] }
        if let key = stored.stateKey, let name = try await database.stateKey(key),
            name.type == "m.room.member", let user = UserID(name.key)
        {
            let event = try context.parse(stored, try await rooms.room(stored.room).version)
            let isOwnUser = user.server == context.serverName
            isMadeHere = isOwnUser && event.isThirdPartyInvite
            let membership = event.content["membership"]
            if !isOwnUser, membership?.isString("leave") == true || membership?.isString("ban") == true {
                let server = try await database.number(ofServer: user.server)
                if !servers.contains(server) { servers.append(server) }
            }
        }
        if let sender = try await database.user(stored.sender), sender.server != context.serverName, !isMadeHere {
            let own = try await database.number(ofServer: sender.server)
            servers.removeAll { $0 == own }
        }
        return servers
    }

    /// What is to be told of users whose devices have changed, and to whom (Server-Server API, "Device Management"). Without the
    /// change before, so that who hears it asks for the whole list: that can't go wrong.
    func deviceUpdates(
        of users: [(user: UserNID, position: Int64)]
    ) async throws -> [(edu: EDU, servers: [ServerName])] {
        var updates: [(EDU, [ServerName])] = []
        for (user, position) in users {
            let servers = try await database.read { try await self.database.servers(sharingRoomsWith: user, $0) }
                .filter { $0 != ownServer }
            guard !servers.isEmpty, let name = try await database.user(user) else { continue }
            let device = try await database.deviceIDs(of: [user])[user]?.first
            var content: JSONObject = [
                "user_id": .string(name.string), "device_id": .string(device ?? "none"),
                "stream_id": .integer(position), "prev_id": [],
            ]
            if device == nil { content["deleted"] = true }
            let edu = EDU("m.device_list_update", .object(content), replacing: name.string, position: position)
            updates.append((edu, try await database.servers(servers).values.sorted()))
        }
        return updates
    }
}
