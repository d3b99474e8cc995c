import Testing

@testable import MatrixCore

/// Room Version 2, State resolution, Definitions: auth chain, auth difference; Room Version 12: conflicted state subgraph.
@Suite("Auth chains") struct AuthChainTests {
    /// Events whose auth events are drawn here: letters, an arrow to what each rests on.
    struct Graph {
        var events: [EventID: Event] = [:]
        var ids: [String: EventID] = [:]

        init(_ edges: [(String, [String])]) throws {
            for (name, auth) in edges {
                var json: JSON = [
                    "type": "x", "state_key": .string(name), "sender": "@a:hs", "room_id": "!r:hs", "depth": 1,
                    "origin_server_ts": 1,
                    "content": [:], "hashes": ["sha256": "x"], "signatures": [:], "prev_events": [],
                    "event_id": .string("$\(name):hs"),
                ]
                json["auth_events"] = .array(auth.map { [.string("$\($0):hs"), [:]] })
                let event = try Event(receiving: json.encoded(), version: .v2)
                events[event.eventID] = event
                ids[name] = event.eventID
            }
        }

        func names(_ set: Set<EventID>) -> String {
            set.map { String($0.string.dropFirst().prefix(1)) }.sorted().joined()
        }
        func list(_ names: String) -> [EventID] { names.compactMap { ids[String($0)] } }
        var source: EventLookup { EventLookup(events) }
    }

    /// a is the root; b and c rest on it, d on b and c, e on c, f on d.
    static let edges = [("a", []), ("b", ["a"]), ("c", ["a"]), ("d", ["b", "c"]), ("e", ["c"]), ("f", ["d"])]

    @Test(
        "a chain has the auth events and theirs, the event itself only if another rests on it",
        arguments: [
            ("a", ""), ("b", "a"), ("d", "abc"), ("f", "abcd"), ("de", "abc"), ("df", "abcd"),
        ])
    func chains(events: String, chain: String) throws {
        let graph = try Graph(Self.edges)
        let found = try AuthChains.chain(of: graph.list(events), version: .v2, source: graph.source)
        #expect(graph.names(found) == chain)
    }

    @Test(
        "the difference is what is in some chains and not in all",
        arguments: [
            (["d", "d"], ""), (["d", "e"], "bde"), (["f", "e"], "bdef"), (["f", "d"], "f"), (["b", "c"], "bc"),
            (["a", "f"], "bcdf"), (["f", "e", "d"], "bdef"), (["de", "f"], "ef"),
        ])
    func differences(states: [String], difference: String) throws {
        let graph = try Graph(Self.edges)
        let found = try AuthChains.difference(of: states.map(graph.list), version: .v2, source: graph.source)
        #expect(graph.names(found) == difference)
    }

    @Test(
        "the subgraph has all paths between conflicted events",
        arguments: [
            ("f", "f"), ("fa", "abcdf"), ("fb", "bdf"), ("fe", "ef"), ("da", "abcd"), ("fc", "cdf"), ("efc", "cdef"),
        ])
    func subgraph(conflicted: String, expected: String) throws {
        let graph = try Graph(Self.edges)
        var authGraph = AuthGraph(source: graph.source, version: .v2, limits: .init())
        var numbers = Set<Int>()
        for id in graph.list(conflicted) { numbers.insert(try authGraph.required(id)) }
        let found = try authGraph.subgraph(of: numbers).map { authGraph.events[$0].eventID }
        #expect(graph.names(Set(found)) == expected)
    }
}
