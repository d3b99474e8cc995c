/// Makes one state out of several (Room Versions, State resolution of each version).
///
/// A pure function of the states and the events that they and their auth chains name: every server that has the same
/// events comes to the same state, in whatever order the states are given.
public enum StateResolution {
    /// Resolves whole states.
    ///
    /// - Parameters:
    ///   - states: The states after each of an event's previous events.
    ///   - version: The version of the room, which decides about the algorithm.
    ///   - limits: How much work it may be.
    ///   - source: The events of the states and of their auth chains.
    /// - Throws: ``StateResolutionError`` if an event of the states is missing or the work exceeds `limits`.
    public static func resolve(
        _ states: [StateMap], version: RoomVersion, limits: StateResolutionLimits = .init(), source: some EventSource
    ) throws(StateResolutionError) -> StateMap {
        guard states.count <= limits.maxStates else { throw .tooManyStates(states.count) }
        guard var shared = states.first else { return [:] }
        if states.count == 1 { return shared }
        var differingKeys = Set<StateKey>()
        for state in states.dropFirst() {
            for (key, event) in state where shared[key] != event { differingKeys.insert(key) }
            for key in shared.keys where state[key] == nil { differingKeys.insert(key) }
        }
        if differingKeys.isEmpty { return shared }
        let differing = states.map { state in
            Dictionary(uniqueKeysWithValues: differingKeys.compactMap { key in state[key].map { (key, $0) } })
        }
        for key in differingKeys { shared[key] = nil }
        let base = shared
        let resolved = try resolve(
            differing: differing, chains: .of(shared: Array(base.values)), sharedEvent: { base[$0] },
            version: version, limits: limits, source: source)
        // Step 5: the unconflicted state map has the last word.
        return base.merging(resolved) { unconflicted, _ in unconflicted }
    }

    /// How the auth difference of states is found out.
    public enum AuthDifference: Sendable {
        /// By walking the auth chains. `shared` are the events that all states have in common at the other keys: needed to know
        /// what is in every auth chain; leaving out such whose auth chains lie within those of others changes nothing.
        case of(shared: [EventID])
        /// The caller has an index of the auth chains and knows it.
        case known(Set<EventID>)
    }

    /// Resolves what differs between states, for callers that can compare states without enumerating them.
    ///
    /// - Parameters:
    ///   - differing: For each state its entries at the keys at which not all states have the same event.
    ///   - chains: What the auth chains of the states differ in.
    ///   - sharedEvent: The events that all states have in common, by their keys.
    /// - Returns: The entries to set in the shared state. Keys that the shared state has must stay as they are.
    /// - Throws: ``StateResolutionError`` if an event of the states is missing or the work exceeds `limits`.
    public static func resolve(
        differing: [StateMap], chains: AuthDifference, sharedEvent: (StateKey) -> EventID?, version: RoomVersion,
        limits: StateResolutionLimits = .init(), source: some EventSource
    ) throws(StateResolutionError) -> StateMap {
        guard differing.count <= limits.maxStates else { throw .tooManyStates(differing.count) }
        var graph = AuthGraph(source: source, version: version, limits: limits)
        switch version.rules.stateResolution {
        case .v1:
            return try resolveV1(differing, sharedEvent, &graph)
        case .v2, .v2Revised:
            return try resolveV2(
                differing, chains, sharedEvent, &graph, isRevised: version.rules.stateResolution == .v2Revised)
        }
    }
}
