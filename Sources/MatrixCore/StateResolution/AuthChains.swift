extension AuthGraph {
    /// The events that are not in the auth chain of every state (Room Version 2, State resolution, Auth difference).
    /// The events of a state belong to its chain (`docs/protocol-core.md`, D1).
    ///
    /// - Parameters:
    ///   - shared: Events that all states have; their chains are in every state's chain and are walked once.
    ///   - differing: For each state the events that not all states have.
    mutating func authDifference(
        shared: [Int], differing: [[Int]]
    ) throws(StateResolutionError) -> Set<Int> {
        let everywhere = try reachable(from: shared)
        // How many of the states have an event in their chain, for those that aren't in every chain anyway.
        var occurrences: [Int: Int] = [:]
        for state in differing {
            var seen = Set(state).subtracting(everywhere)
            var open = Array(seen)
            while let event = open.popLast() {
                for auth in try authEvents(of: event) where !everywhere.contains(auth) && seen.insert(auth).inserted {
                    open.append(auth)
                }
            }
            for event in seen { occurrences[event, default: 0] += 1 }
        }
        return Set(occurrences.lazy.filter { $0.value < differing.count }.map(\.key))
    }

    /// All events on paths along auth events from one event of `conflicted` to another, ends included
    /// (Room Version 12, State resolution, Conflicted state subgraph).
    mutating func subgraph(of conflicted: Set<Int>) throws(StateResolutionError) -> Set<Int> {
        // Reachable from a conflicted event, and able to reach one: found by walking the reversed edges back up.
        let below = try reachable(from: conflicted.sorted())
        var parents: [Int: [Int]] = [:]
        for event in below {
            for auth in try authEvents(of: event) { parents[auth, default: []].append(event) }
        }
        var found = conflicted
        var open = Array(conflicted)
        while let event = open.popLast() {
            for parent in parents[event] ?? [] where found.insert(parent).inserted { open.append(parent) }
        }
        return found
    }
}

/// Auth chains as far as other parts of a server need them.
public enum AuthChains {
    /// All events that can be reached from `events` along auth events, without `events` themselves unless one is
    /// in another's chain (Server-Server API, Retrieving event authorisation information).
    ///
    /// - Throws: ``StateResolutionError`` if an event of `events` is missing or the chain exceeds `limits`.
    public static func chain(
        of events: [EventID], version: RoomVersion, limits: StateResolutionLimits = .init(), source: some EventSource
    ) throws(StateResolutionError) -> Set<EventID> {
        var graph = AuthGraph(source: source, version: version, limits: limits)
        var first = Set<Int>()
        for id in events { first.formUnion(try graph.authEvents(of: try graph.required(id))) }
        return Set(try graph.reachable(from: Array(first)).map { graph.events[$0].eventID })
    }

    /// The events that are in some of `states` or their auth chains, but not so in all of them.
    ///
    /// - Throws: ``StateResolutionError`` if an event of a state is missing or the chains exceed `limits`.
    public static func difference(
        of states: [[EventID]], version: RoomVersion, limits: StateResolutionLimits = .init(), source: some EventSource
    ) throws(StateResolutionError) -> Set<EventID> {
        guard states.count <= limits.maxStates else { throw .tooManyStates(states.count) }
        var graph = AuthGraph(source: source, version: version, limits: limits)
        var differing: [[Int]] = []
        for state in states {
            var numbers: [Int] = []
            for id in state { numbers.append(try graph.required(id)) }
            differing.append(numbers)
        }
        return Set(try graph.authDifference(shared: [], differing: differing).map { graph.events[$0].eventID })
    }
}
