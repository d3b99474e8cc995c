import Database
import MatrixCore

/// Searching messages (Client-Server API, "Server Side Search").
///
/// Events are found by their words in the rooms that the requester is in or has left, and then held against the history
/// visibility at each of them, as everywhere. Nothing else of what is found is told: not how many there are that the requester
/// may not see. Rooms that are end-to-end encrypted aren't searched.
public final class SearchService: Sendable {
    let reading: RoomReading
    private let directory: DirectoryService
    private let indexing: SearchIndexing
    private var rooms: RoomRegistry { reading.rooms }
    private var context: RoomContext { reading.context }
    private var database: Database { reading.database }

    init(reading: RoomReading, directory: DirectoryService, indexing: SearchIndexing) {
        self.reading = reading
        self.directory = directory
        self.indexing = indexing
    }

    /// Events that are looked at for one page: one of what the requester may not see ends with a token to go on from.
    static let mostExamined = 2_000
    /// The newest results among which the best are chosen.
    static let mostRanked = 500
    /// Results behind a page that are counted, so that people see how many there are.
    static let mostCounted = 100
    /// Events of a room that were sent so lately that they aren't in the index yet, and are looked through one by one.
    static let mostQueued = 1_000
    /// Rooms in which a word isn't counted before it is looked for, and rooms that are asked about one by one.
    private static let mostUncounted = 3
    private static let mostNamed = 10
    /// From so many of them on the index isn't let wait any longer.
    private static let manyQueued = 50

    /// A room that is searched.
    struct Place {
        let room: Room
        let access: RoomAccess
        /// The words, the rarest in this room first.
        let words: [[UInt8]]
    }

    /// A result.
    struct Found {
        let hit: SearchHit
        let event: StoredEvent
        let place: Place
        let rank: Double
        let membership: Membership
    }

    /// The page that a request asks for.
    func page(_ request: SearchRequest, for requester: Requester) async throws -> Page {
        var page = Page()
        if request.words.isEmpty { return page }
        let (places, queued) = try await places(request, for: requester)
        let start: SearchHit, shown: Int, wanted: Int
        switch request.start {
        case .behind(let hit, let before): (start, shown, wanted) = (hit, before, request.limit)
        case .beginning, .offset:
            start = SearchHit(timestamp: .max, event: EventNID(.max))
            shown = 0
            wanted = request.order == .rank ? Self.mostRanked : request.limit
        }
        let (found, beyond, next) = try await database.read { reader in
            try await self.find(
                request, in: places, queued: queued, before: start, wanted: wanted, for: requester, reader)
        }
        page.count = shown + found.count + beyond
        guard request.order == .rank else {
            page.results = found
            page.next = next.map { SearchRequest.token(behind: $0, shown: shown + found.count) }
            return page
        }
        let ranked = found.sorted { ($0.rank, $0.hit) > ($1.rank, $1.hit) }
        var offset = 0
        if case .offset(let before) = request.start { offset = min(before, ranked.count) }
        page.results = Array(ranked.dropFirst(offset).prefix(request.limit))
        let end = offset + page.results.count
        if end < ranked.count { page.next = SearchRequest.token(offset: end) }
        return page
    }

    struct Page {
        var results: [Found] = []
        /// How many there are, as far as they were counted.
        var count = 0
        var next: String?
    }

    // MARK: - Where to look

    /// The requester's rooms in which there is each of the words, and events there that aren't in the index yet.
    private func places(
        _ request: SearchRequest, for requester: Requester
    ) async throws -> ([RoomNID: Place], [SearchQueueEntry]) {
        let own = try await memberships(request, of: requester)
            .filter { [.join, .leave, .ban].contains($0.membership) && !$0.forgotten }
        let numbers = own.map(\.room)
        // Of a single word nothing has to be known to begin with the rarest; in many rooms it shows which needn't be looked at.
        var counts: [RoomNID: [Int]] = [:]
        let queued: [SearchQueueEntry]
        let isCounted = request.words.count > 1 || numbers.count > Self.mostUncounted
        if isCounted {
            (counts, queued) = try await database.read { reader in
                (
                    try await self.database.searchCounts(of: request.words, in: numbers, reader),
                    try await self.database.searchQueue(of: numbers, limit: Self.mostQueued, reader)
                )
            }
        } else {
            queued = try await database.readOnce {
                try await self.database.searchQueue(of: numbers, limit: Self.mostQueued, $0)
            }
        }
        // The next search doesn't have to look through them any more.
        if queued.count >= Self.manyQueued { indexing.hurry() }
        let waiting = Set(queued.map(\.room))
        var places: [RoomNID: Place] = [:]
        for membership in own {
            let nid = membership.room
            let counts = counts[nid] ?? [Int](repeating: 1, count: request.words.count)
            guard waiting.contains(nid) || counts.allSatisfy({ $0 > 0 }) else { continue }
            let room = try await rooms.room(nid)
            guard request.filter.admits(room.roomID), let access = try await rooms.access(membership, to: room) else {
                continue
            }
            let encryption = StateKey("m.room.encryption")
            if try await directory.contents(room, [encryption])[encryption] != nil { continue }
            let order = request.words.indices.sorted { counts[$0] < counts[$1] }
            places[nid] = Place(room: room, access: access, words: order.map { request.words[$0] })
        }
        return (places, queued.filter { places[$0.room] != nil })
    }

    /// The requester's memberships, of the rooms that a request names, if it names some.
    private func memberships(_ request: SearchRequest, of requester: Requester) async throws -> [RoomMembership] {
        guard let names = request.filter.rooms, names.count <= Self.mostNamed else {
            return try await database.readOnce { try await self.database.memberships(of: requester.nid, $0) }
        }
        var memberships: [RoomMembership] = []
        for name in names {
            guard let roomID = RoomID(name.string), let room = try await rooms.room(roomID),
                let membership = try await rooms.membership(of: requester.nid, in: room)
            else { continue }
            memberships.append(membership)
        }
        return memberships
    }

    // MARK: - Looking

    /// The newest results older than a hit.
    ///
    /// - Returns: also how many more there are, as far as they are counted, and the hit behind which to go on; nil if there is
    ///   nothing more.
    private func find(
        _ request: SearchRequest, in places: [RoomNID: Place], queued: [SearchQueueEntry], before start: SearchHit,
        wanted: Int, for requester: Requester, _ reader: any Reader
    ) async throws -> (found: [Found], beyond: Int, next: SearchHit?) {
        var sieve = Sieve(service: self, request: request, requester: requester, places: places, reader: reader)
        let fresh = try await database.events(queued.map(\.event), reader)
            .filter { sieve.mayBeResult($0) }
            .map { SearchHit(timestamp: $0.originServerTS, event: $0.nid) }
        let unindexed = Set(fresh)
        var active = Array(places.keys)
        var found: [Found] = []
        var beyond = 0
        var cursor = start
        // Where the page ends, once it is full and there is something behind it.
        var end: SearchHit?
        var examined = 0
        while examined < Self.mostExamined {
            let ask = max(50, wanted - found.count)
            let byRoom = try await database.searchHits(
                active.map { ($0, places[$0]?.words ?? []) }, before: cursor, limit: ask, reader)
            // Rooms that gave as much as was asked for have more behind their last: up to there all is known of all rooms.
            let full = byRoom.filter { $0.value.count == ask }
            let horizon = full.compactMap(\.value.last).max()
            let known = Set(byRoom.values.joined()).union(fresh.filter { $0 < cursor })
            let hits = known.filter { $0 >= horizon ?? $0 }.sorted(by: >)
            let candidates = try await sieve.candidates(for: hits, unindexed: unindexed)
            for hit in hits {
                if beyond == Self.mostCounted { return (found, beyond, end) }
                let isFull = found.count == wanted
                let last = cursor
                cursor = hit
                examined += 1
                guard let candidate = candidates[hit], let membership = try await sieve.membership(at: candidate.event)
                else { continue }
                if isFull {
                    end = end ?? last
                    beyond += 1
                } else {
                    found.append(
                        Found(
                            hit: hit, event: candidate.event, place: candidate.place, rank: sieve.rank(of: candidate),
                            membership: membership))
                }
            }
            guard horizon != nil else { return (found, beyond, end) }
            active = active.filter { byRoom[$0] != nil }
        }
        return (found, beyond, end ?? cursor)
    }
}

/// What lets a hit pass as a result: it has all of the words where they are wanted, and the requester may see it.
private struct Sieve {
    let service: SearchService
    let request: SearchRequest
    let requester: Requester
    let places: [RoomNID: SearchService.Place]
    let reader: any Reader
    private var visibilities: [RoomNID: EventVisibility] = [:]

    /// An event that has the words.
    struct Candidate {
        let event: StoredEvent
        let parsed: Event
        let place: SearchService.Place
    }

    init(
        service: SearchService, request: SearchRequest, requester: Requester,
        places: [RoomNID: SearchService.Place], reader: any Reader
    ) {
        self.service = service
        self.request = request
        self.requester = requester
        self.places = places
        self.reader = reader
    }

    /// A quick look, which never says no to a result.
    func mayBeResult(_ stored: StoredEvent) -> Bool {
        stored.redactedBy == nil && request.words.allSatisfy { SearchWords.mayHold($0, in: stored.json) }
    }

    /// Those of the hits that have the words where they are wanted, whoever may see them; all are read at once.
    ///
    /// - Parameter unindexed: those of them that didn't come out of the index, which knows that the words are there.
    func candidates(
        for hits: [SearchHit], unindexed: Set<SearchHit>
    ) async throws -> [SearchHit: Candidate] {
        let context = service.reading.context
        let events = try await context.database.events(hits.map(\.event), reader)
        let pruned = try await context.erasures.pruned(events, for: requester.nid, reader)
        let isAnywhere = request.keys.count == SearchWords.Key.allCases.count
        let wanted = Set(request.words)
        var candidates: [SearchHit: Candidate] = [:]
        for stored in events where stored.redactedBy == nil && !pruned.contains(stored.nid) {
            guard let place = places[stored.room] else { continue }
            let hit = SearchHit(timestamp: stored.originServerTS, event: stored.nid)
            let event = try context.parse(stored, place.room.version)
            if !isAnywhere || unindexed.contains(hit) {
                guard wanted.isSubset(of: words(of: event)) else { continue }
            }
            guard try await request.filter.admits(stored, context, place.room.version) else { continue }
            candidates[hit] = Candidate(event: stored, parsed: event, place: place)
        }
        return candidates
    }

    private func words(of event: Event) -> [[UInt8]] {
        SearchWords.texts(type: event.type, content: event.content, keys: request.keys).flatMap {
            SearchWords.split($0)
        }
    }

    /// A message that is about nothing else comes before a long one that mentions it.
    func rank(of candidate: Candidate) -> Double {
        let words = words(of: candidate.parsed)
        return Double(words.count { request.words.contains($0) }) / Double(max(words.count, 1))
    }

    /// What the requester was in the room at an event; nil if they may not see it.
    mutating func membership(at event: StoredEvent) async throws -> Membership? {
        if visibilities[event.room] == nil, let place = places[event.room] {
            visibilities[event.room] = try await service.reading.visibility(
                place.room, place.access, requester, reader)
        }
        guard try await visibilities[event.room]?.allows(event) == true else { return nil }
        return try await visibilities[event.room]?.membership(at: event)
    }
}
