/// Rule 10 (9 in room versions 6 to 11): `m.room.power_levels`.
extension Authorization.Context {
    private static let names = [
        "users_default", "events_default", "state_default", "ban", "redact", "kick", "invite",
    ]

    func checkPowerLevels() throws(AuthorizationError) {
        let new = event.content
        func malformed(_ reason: String) -> AuthorizationError { AuthorizationError(.malformedPowerLevels, reason) }

        if rules.powerLevelValues == .integers {
            // 10.1. (from version 10 on)
            for name in Self.names {
                guard new[name].map({ read($0) != nil }) ?? true else { throw malformed("\(name) is not an integer.") }
            }
            // 10.2. (from version 10 on)
            for name in ["events", "notifications"] {
                guard let levels = new[name] else { continue }
                guard levels.isObject, levels.members.allSatisfy({ read($0.value) != nil }) else {
                    throw malformed("\(name) is not an object of integers.")
                }
            }
        }
        // 10.3. A room version that reads other values than integers accepts them here.
        if let users = new["users"] {
            guard users.isObject, users.members.allSatisfy({ UserID($0.key) != nil && read($0.value) != nil }) else {
                throw malformed("users is not an object of levels by user ID.")
            }
        }
        // 10.4. (version 12)
        if rules.creatorsHaveInfinitePower, let users = new["users"] {
            let named = Set(users.members.lazy.map { ByteString($0.key) })
            for creator in create.roomCreators where named.contains(ByteString(creator.string)) {
                throw AuthorizationError(
                    .powerLevelsNameCreator, "\(creator) created the room and cannot be given a power level.")
            }
        }
        // 10.5.
        guard let old = currentPowerLevels?.content else { return }

        let level = powerLevels.level(of: event.sender)
        func tooHigh(_ what: String) -> AuthorizationError {
            AuthorizationError(
                .powerLevelTooHigh, "\(event.sender) has power level \(level), not enough to change \(what).")
        }
        // 10.6.
        for name in Self.names {
            let current = old[name].flatMap(read)
            let next = new[name].flatMap(read)
            if current != next, exceeds(current, level) || exceeds(next, level) { throw tooHigh(name) }
        }
        // 10.7, 10.8. `notifications` from version 6 on.
        for map in rules.limitsNotificationLevels ? ["events", "notifications"] : ["events"] {
            for (key, current, next) in changes(from: old[map], to: new[map]) {
                if exceeds(current, level) || exceeds(next, level) { throw tooHigh("the level for \(key)") }
            }
        }
        for (user, current, next) in changes(from: old["users"], to: new["users"]) {
            // 10.9.
            if let current, user != ByteString(event.sender.string), .finite(current) >= level {
                throw tooHigh("the level of \(user)")
            }
            // 10.10.
            if exceeds(next, level) { throw tooHigh("the level of \(user)") }
        }
    }

    private func read(_ value: JSONView) -> Int64? { PowerLevels.read(value, as: rules.powerLevelValues) }

    private func exceeds(_ value: Int64?, _ level: PowerLevel) -> Bool {
        value.map { .finite($0) > level } ?? false
    }

    /// The entries of two objects of levels that differ, in the order of their keys.
    private func changes(
        from old: JSONView?, to new: JSONView?
    ) -> [(key: ByteString, current: Int64?, next: Int64?)] {
        let current = levels(old)
        let next = levels(new)
        let keys = Set(current.keys).union(next.keys).filter { current[$0] != next[$0] }
        return keys.sorted().map { ($0, current[$0], next[$0]) }
    }

    private func levels(_ object: JSONView?) -> [ByteString: Int64] {
        var levels: [ByteString: Int64] = [:]
        guard let object else { return levels }
        for (key, value) in object.members { levels[ByteString(key)] = read(value) }
        return levels
    }
}
