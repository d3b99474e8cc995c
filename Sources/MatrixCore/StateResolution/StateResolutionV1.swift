/// State resolution of room version 1.
extension StateResolution {
    /// Room Version 1, State resolution.
    ///
    /// - Parameter differing: May have keys at which some states have no event; if all others have the same, there is no
    ///   conflict and it is taken over.
    static func resolveV1<Source: EventSource>(
        _ differing: [StateMap], _ sharedEvent: (StateKey) -> EventID?, _ graph: inout AuthGraph<Source>
    ) throws(StateResolutionError) -> StateMap {
        var candidates: [StateKey: Set<Int>] = [:]
        for state in differing {
            for (key, id) in state { candidates[key, default: []].insert(try graph.required(id)) }
        }
        // R: the union of the states without what conflicts.
        var resolved: [StateKey: Int] = [:]
        for (key, events) in candidates where events.count == 1 {
            resolved[key] = events.first
            candidates[key] = nil
        }

        // Power levels, then join rules, then members. The members' conflicts are resolved independently of one another, so
        // that their order doesn't matter: the text gives none.
        for type in ["m.room.power_levels", "m.room.join_rules", "m.room.member"] {
            var results: [StateKey: Int] = [:]
            for (key, events) in candidates where key.type.hasSameBytes(as: type) {
                results[key] = try lastAuthorised(
                    depthOrder(events, graph.events), at: key, in: resolved, sharedEvent, &graph)
            }
            for (key, number) in results {
                resolved[key] = number
                candidates[key] = nil
            }
        }

        // All others: the deepest that is allowed.
        var results: [StateKey: Int] = [:]
        for (key, events) in candidates {
            let order = depthOrder(events, graph.events)
            // If none is allowed the text is silent; the state does not lose the key, the oldest stays.
            results[key] = order.first
            for number in order.reversed() where try isAllowed(number, in: resolved, sharedEvent, &graph) {
                results[key] = number
                break
            }
        }
        resolved.merge(results) { _, new in new }
        return resolved.mapValues { graph.events[$0].eventID }
    }

    /// By ascending depth, then by descending SHA-1 of the event ID.
    private static func depthOrder(_ events: Set<Int>, _ all: [Event]) -> [Int] {
        let keyed = events.map { number in
            (depth: all[number].depth, hash: Hashing.sha1(all[number].eventID.string.utf8), number: number)
        }
        return keyed.sorted { a, b in
            a.depth != b.depth ? a.depth < b.depth : b.hash.lexicographicallyPrecedes(a.hash)
        }.map(\.number)
    }

    /// Goes up the list as long as each event is allowed with the one before it in the state.
    private static func lastAuthorised<Source: EventSource>(
        _ order: [Int], at key: StateKey, in resolved: [StateKey: Int], _ sharedEvent: (StateKey) -> EventID?,
        _ graph: inout AuthGraph<Source>
    ) throws(StateResolutionError) -> Int? {
        var state = resolved
        for number in order {
            if state[key] != nil, try !isAllowed(number, in: state, sharedEvent, &graph) { break }
            state[key] = number
        }
        return state[key]
    }

    private static func isAllowed<Source: EventSource>(
        _ number: Int, in state: [StateKey: Int], _ sharedEvent: (StateKey) -> EventID?,
        _ graph: inout AuthGraph<Source>
    ) throws(StateResolutionError) -> Bool {
        let event = graph.events[number]
        var ground: [StateKey: Event] = [:]
        for key in Authorization.requiredStateKeys(for: event) {
            if let present = state[key] {
                ground[key] = graph.events[present]
            } else if let id = sharedEvent(key) {
                let number = try graph.required(id)
                ground[key] = graph.events[number]
            }
        }
        do throws(AuthorizationError) {
            try Authorization.check(event) { ground[$0] }
            return true
        } catch {
            return false
        }
    }
}
