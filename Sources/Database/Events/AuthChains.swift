/// A place in the chain cover of the auth graph.
///
/// Every state event stands in one chain, where each event has the one before it in its auth chain. Links lead from
/// a place in one chain to a place in another: all before the first reach all before the second. So what a set of events
/// reaches is a number for each chain, found by following links; the events themselves are read last, as ranges.
public struct ChainPlace: Sendable, Hashable {
    public let chain: Int64
    /// 1 for the first of the chain.
    public let place: Int64

    public init(chain: Int64, place: Int64) {
        self.chain = chain
        self.place = place
    }
}

/// Places and links of events that are about to be written.
public struct ChainDraft: Sendable {
    fileprivate struct Link: Sendable {
        let from: ChainPlace
        let to: ChainPlace
    }

    fileprivate var places: [(event: EventNID, place: ChainPlace)] = []
    fileprivate var links: [Link] = []
    private var occupied: Set<ChainPlace> = []

    public init() {}

    fileprivate func links(from range: (chain: Int64, after: Int64, upTo: Int64)) -> [ChainPlace] {
        links.compactMap { link in
            link.from.chain == range.chain && link.from.place > range.after && link.from.place <= range.upTo
                ? link.to : nil
        }
    }

    fileprivate func events(_ range: (chain: Int64, after: Int64, upTo: Int64)) -> [EventNID] {
        places.compactMap { entry in
            entry.place.chain == range.chain && entry.place.place > range.after && entry.place.place <= range.upTo
                ? entry.event : nil
        }
    }

    /// Finds a place for an event behind one that authorises it, or in a new chain.
    ///
    /// - Parameter replacing: the event whose place in the state it takes: its chain is the one to go on with, where it
    ///   is among those that authorise the event.
    public mutating func place(
        _ event: EventNID, authorisedBy auth: [EventNID], replacing: EventNID?, _ database: Database,
        _ reader: any Reader
    ) async throws -> ChainPlace {
        let authPlaces = try await places(of: auth, database, reader)
        var preferred = authPlaces
        // What is replaced is the end of its chain, as a rule; of the others one or none is, so they are looked at together.
        var likely = 0
        if let replacing, let first = auth.firstIndex(of: replacing), authPlaces.indices.contains(first) {
            preferred.swapAt(0, first)
            likely = 1
        }
        let next = preferred.map { ChainPlace(chain: $0.chain, place: $0.place + 1) }
        var chosen = try await firstFree(next.prefix(likely), database, reader)
        if chosen == nil { chosen = try await firstFree(next.dropFirst(likely), database, reader) }
        let place: ChainPlace
        if let chosen {
            place = chosen
        } else {
            place = ChainPlace(chain: try await database.newChainNumber(), place: 1)
        }
        occupied.insert(place)
        places.append((event, place))
        var targets: [Int64: Int64] = [:]
        for target in authPlaces where target.chain != place.chain {
            targets[target.chain] = max(target.place, targets[target.chain] ?? 0)
        }
        for (chain, target) in targets.sorted(by: { $0.key < $1.key }) {
            links.append(Link(from: place, to: ChainPlace(chain: chain, place: target)))
        }
        return place
    }

    fileprivate func places(
        of events: [EventNID], _ database: Database, _ reader: any Reader
    ) async throws -> [ChainPlace] {
        if places.isEmpty { return try await database.events(events, reader).compactMap(\.chain) }
        let fresh = Dictionary(places.map { ($0.event, $0.place) }) { $1 }
        let stored = Dictionary(
            try await database.events(events.filter { fresh[$0] == nil }, reader).map { ($0.nid, $0.chain) }
        ) { $1 }
        return events.compactMap { fresh[$0] ?? stored[$0] ?? nil }
    }

    private static let occupant = Statement("SELECT 1 FROM chain_places WHERE chain_nid = $1 AND place = $2")

    private func firstFree(
        _ candidates: ArraySlice<ChainPlace>, _ database: Database, _ reader: any Reader
    ) async throws -> ChainPlace? {
        let asked = database.takenPlaces.withLock { known in
            candidates.filter { !occupied.contains($0) && known[$0] == nil }
        }
        let taken = Set(
            try await reader.queryEach(Self.occupant, asked.map { [.integer($0.chain), .integer($0.place)] }) {
                place, _ in place
            })
        database.takenPlaces.withLock { known in
            for index in taken { known.insert(true, for: asked[index], size: 1) }
        }
        return asked.indices.first { !taken.contains($0) }.map { asked[$0] }
    }
}

extension Write {
    private static let insertPlace = Statement(
        "INSERT INTO chain_places (chain_nid, place, event_nid) VALUES ($1, $2, $3)", isIndependent: true)
    private static let insertLink = Statement(
        "INSERT INTO chain_links (chain_nid, place, to_chain, to_place) VALUES ($1, $2, $3, $4)", isIndependent: true)

    public mutating func insert(_ chains: ChainDraft) {
        for (event, place) in chains.places {
            run(Self.insertPlace, .integer(place.chain), .integer(place.place), event.value)
        }
        for link in chains.links {
            run(
                Self.insertLink, .integer(link.from.chain), .integer(link.from.place), .integer(link.to.chain),
                .integer(link.to.place))
        }
    }
}

extension Database {
    private static let links = Statement(
        "SELECT to_chain, to_place FROM chain_links WHERE chain_nid = $1 AND place > $2 AND place <= $3")
    private static let range = Statement(
        "SELECT event_nid FROM chain_places WHERE chain_nid = $1 AND place > $2 AND place <= $3")

    /// How far a set of places reaches in each chain. Each link is looked at once.
    private func reach(
        of starts: [ChainPlace], _ draft: ChainDraft, _ reader: any Reader
    ) async throws -> [Int64: Int64] {
        var reached: [Int64: Int64] = [:]
        var frontier = starts
        while !frontier.isEmpty {
            var ranges: [(chain: Int64, after: Int64, upTo: Int64)] = []
            for place in frontier {
                let before = reached[place.chain] ?? 0
                if place.place <= before { continue }
                reached[place.chain] = place.place
                ranges.append((place.chain, before, place.place))
            }
            frontier = try await reader.queryEach(
                Self.links, ranges.map { [.integer($0.chain), .integer($0.after), .integer($0.upTo)] }
            ) { ChainPlace(chain: $1.integer(0), place: $1.integer(1)) }
            for range in ranges { frontier += draft.links(from: range) }
        }
        return reached
    }

    private func events(
        _ ranges: [(chain: Int64, after: Int64, upTo: Int64)], _ draft: ChainDraft, _ reader: any Reader
    ) async throws -> [EventNID] {
        let stored = try await reader.queryEach(
            Self.range, ranges.map { [.integer($0.chain), .integer($0.after), .integer($0.upTo)] }
        ) { EventNID($1.integer(0)) }
        return stored + ranges.flatMap { draft.events($0) }
    }

    /// The events that authorise a set of events, and all that authorise those, rejected ones included.
    ///
    /// Reads the links of the chains that are reached once, and one range for each chain.
    ///
    /// - Parameter auth: the auth events of those events.
    public func authChain(
        through auth: [EventNID], with draft: ChainDraft = ChainDraft(), _ reader: any Reader
    ) async throws -> Set<EventNID> {
        let reached = try await reach(of: try await draft.places(of: auth, self, reader), draft, reader)
        return Set(try await self.events(reached.map { ($0.key, 0, $0.value) }, draft, reader))
    }

    /// The same for events that are stored.
    public func authChain(of events: [EventNID], _ reader: any Reader) async throws -> Set<EventNID> {
        let auth = Set(try await self.events(events, reader).flatMap(\.auth))
        return try await authChain(through: auth.sorted(), reader)
    }

    /// The events that some of the sets hold or have in their auth chains, and not all: what state resolution adds to the
    /// conflicted set (room version 2, "auth difference"; `docs/protocol-core.md`, D1). Reads no event that all sets share.
    ///
    /// - Parameter draft: the places of events that are not written yet.
    public func authDifference(
        of sets: [[EventNID]], with draft: ChainDraft = ChainDraft(), _ reader: any Reader
    ) async throws -> Set<EventNID> {
        var reaches: [[Int64: Int64]] = []
        for set in sets {
            reaches.append(try await reach(of: try await draft.places(of: set, self, reader), draft, reader))
        }
        var ranges: [(chain: Int64, after: Int64, upTo: Int64)] = []
        for chain in Set(reaches.flatMap(\.keys)) {
            let places = reaches.map { $0[chain] ?? 0 }
            let (least, most) = (places.min() ?? 0, places.max() ?? 0)
            if least < most { ranges.append((chain, least, most)) }
        }
        return Set(try await events(ranges, draft, reader))
    }
}
