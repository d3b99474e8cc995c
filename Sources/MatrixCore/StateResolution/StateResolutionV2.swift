/// State resolution of room versions 2 to 11, and with the three changes of version 12.
extension StateResolution {
    /// Room Version 2, State resolution, Algorithm; Room Version 12, State resolution.
    static func resolveV2<Source: EventSource>(
        _ differing: [StateMap], _ chains: AuthDifference, _ sharedEvent: (StateKey) -> EventID?,
        _ graph: inout AuthGraph<Source>, isRevised: Bool
    ) throws(StateResolutionError) -> StateMap {
        // Definitions: the conflicted state set.
        var conflicted = Set<Int>()
        var conflictedByState: [[Int]] = []
        for state in differing {
            var events: [Int] = []
            for id in state.values { events.append(try graph.required(id)) }
            conflicted.formUnion(events)
            conflictedByState.append(events)
        }

        // Definitions: the full conflicted set.
        var full = conflicted
        switch chains {
        case .known(let difference):
            // Events that the difference names and nobody has are holes in auth chains.
            for id in difference { if let number = try graph.number(of: id) { full.insert(number) } }
        case .of(let shared):
            var numbers: [Int] = []
            numbers.reserveCapacity(shared.count)
            for id in shared { numbers.append(try graph.required(id)) }
            full.formUnion(try graph.authDifference(shared: numbers, differing: conflictedByState))
        }
        if isRevised { full.formUnion(try graph.subgraph(of: conflicted)) }

        // 1. The power events of the full conflicted set and what of their auth chains is reached within it (D2).
        let powerEvents = full.filter { isPowerEvent(graph.events[$0]) }
        let selected = try graph.reachable(from: powerEvents.sorted(), within: full)
        let powerOrder = try reverseTopologicalPowerOrder(of: selected, &graph)

        // 2. Version 12 starts from an empty state, the versions before from the unconflicted state.
        var resolved: [StateKey: Int] = [:]
        func unconflicted(_ key: StateKey) -> EventID? { isRevised ? nil : sharedEvent(key) }
        try applyAuthorised(powerOrder, to: &resolved, unconflicted, &graph)

        // 3. Everything else by the mainline of the power levels so far.
        var powerLevels = resolved[.powerLevels]
        if powerLevels == nil, let id = unconflicted(.powerLevels) { powerLevels = try graph.required(id) }
        let rest = try mainlineOrder(of: full.subtracting(selected), powerLevels: powerLevels, &graph)

        // 4.
        try applyAuthorised(rest, to: &resolved, unconflicted, &graph)

        // 5. The unconflicted state map has the last word.
        var result: StateMap = [:]
        for (key, number) in resolved where sharedEvent(key) == nil { result[key] = graph.events[number].eventID }
        return result
    }

    /// Definitions, Power events.
    private static func isPowerEvent(_ event: Event) -> Bool {
        guard let stateKey = event.stateKey else { return false }
        if event.type.hasSameBytes(as: "m.room.power_levels") || event.type.hasSameBytes(as: "m.room.join_rules") {
            return true
        }
        guard event.type.hasSameBytes(as: "m.room.member"), !stateKey.hasSameBytes(as: event.sender.string) else {
            return false
        }
        let membership = Membership(event.content["membership"])
        return membership == .leave || membership == .ban
    }

    /// Definitions, Iterative auth checks.
    private static func applyAuthorised<Source: EventSource>(
        _ order: [Int], to state: inout [StateKey: Int], _ unconflicted: (StateKey) -> EventID?,
        _ graph: inout AuthGraph<Source>
    ) throws(StateResolutionError) {
        for number in order {
            let event = graph.events[number]
            guard let key = event.stateMapKey else { continue }
            var ground: [StateKey: Event] = [:]
            // What the state lacks comes from the event's own auth events, unless they were rejected.
            for auth in try graph.authEvents(of: number) where !graph.isRejected(auth) {
                if let authKey = graph.events[auth].stateMapKey { ground[authKey] = graph.events[auth] }
            }
            for required in Authorization.requiredStateKeys(for: event) {
                if let present = state[required] {
                    ground[required] = graph.events[present]
                } else if let id = unconflicted(required) {
                    let number = try graph.required(id)
                    ground[required] = graph.events[number]
                }
            }
            if ground[.create] == nil, let create = try graph.createEvent(for: number) {
                ground[.create] = graph.events[create]
            }
            do throws(AuthorizationError) {
                try Authorization.check(event) { ground[$0] }
            } catch {
                // An event that is not allowed is passed over.
                continue
            }
            state[key] = number
        }
    }
}
