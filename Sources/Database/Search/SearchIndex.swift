import MatrixCore

/// The words of messages. What is sent only takes a place in a queue, in its own write; from there the words are
/// taken over in batches, so that a message costs its sender one short row. Who searches reads both.
extension Write {
    private static let enqueue = Statement(
        "INSERT INTO search_queue (room_nid, event_nid) VALUES ($1, $2) ON CONFLICT DO NOTHING")
    private static let dequeue = Statement(
        "DELETE FROM search_queue WHERE room_nid = $1 AND event_nid = $2", isIndependent: true)
    private static let insertWord = Statement(
        """
        INSERT INTO search_words (room_nid, word, timestamp, event_nid) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING
        """, isIndependent: true)
    private static let deleteWord = Statement(
        "DELETE FROM search_words WHERE room_nid = $1 AND word = $2 AND timestamp = $3 AND event_nid = $4")

    /// Has an event be found by its words from now on.
    public mutating func enqueueForSearch(_ event: EventNID, in room: RoomNID) {
        run(Self.enqueue, room.value, event.value)
    }

    /// Takes events out of the queue, with their words.
    ///
    /// It fails as a conflict if one of them isn't there any more: it was redacted meanwhile, and must not come back.
    public mutating func index(_ events: [(event: StoredEvent, words: Set<[UInt8]>)]) {
        for (event, _) in events {
            expect(
                1, otherwise: "the event is not to be found any more", Self.dequeue, event.room.value, event.nid.value)
        }
        for (event, words) in events {
            for word in words.sorted(by: { $0.lexicographicallyPrecedes($1) }) {
                run(Self.insertWord, event.room.value, .blob(word), .integer(event.originServerTS), event.nid.value)
            }
        }
    }

    /// Takes an event out of the queue that can't be found.
    public mutating func dropFromSearchQueue(_ entry: SearchQueueEntry) {
        run(Self.dequeue, entry.room.value, entry.event.value)
    }

    /// Has an event not be found any more: it is redacted, or deleted.
    ///
    /// - Parameter words: what ``index(_:)`` was given for it.
    public mutating func unindex(
        _ event: EventNID, in room: RoomNID, timestamp: Int64, _ words: Set<[UInt8]>
    ) {
        run(Self.dequeue, room.value, event.value)
        for word in words.sorted(by: { $0.lexicographicallyPrecedes($1) }) {
            run(Self.deleteWord, room.value, .blob(word), .integer(timestamp), event.value)
        }
    }
}

/// An event whose words aren't in the index yet.
public struct SearchQueueEntry: Sendable {
    public let room: RoomNID
    public let event: EventNID
}

/// An event that may be what is searched for.
public struct SearchHit: Sendable, Hashable, Comparable {
    public let timestamp: Int64
    public let event: EventNID

    public init(timestamp: Int64, event: EventNID) {
        self.timestamp = timestamp
        self.event = event
    }

    public static func < (left: Self, right: Self) -> Bool {
        (left.timestamp, left.event.rawValue) < (right.timestamp, right.event.rawValue)
    }
}

extension Database {
    private static let queue = Statement(
        "SELECT room_nid, event_nid FROM search_queue ORDER BY room_nid, event_nid LIMIT $1")

    /// Events whose words are to be taken over, room by room: words of the same room go into the same pages.
    public func searchQueue(limit: Int) async throws -> [SearchQueueEntry] {
        try await read { reader in
            try await reader.query(Self.queue, [.integer(Int64(limit))]) {
                SearchQueueEntry(room: RoomNID($0.integer(0)), event: EventNID($0.integer(1)))
            }
        }
    }

    private static let queueOfRoom = Statement(
        "SELECT event_nid FROM search_queue WHERE room_nid = $1 ORDER BY event_nid DESC LIMIT $2")

    /// The newest events of rooms whose words aren't in the index yet. A short range for each room.
    public func searchQueue(
        of rooms: [RoomNID], limit: Int, _ reader: any Reader
    ) async throws -> [SearchQueueEntry] {
        try await reader.queryEach(Self.queueOfRoom, rooms.map { [$0.value, .integer(Int64(limit))] }) {
            SearchQueueEntry(room: rooms[$0], event: EventNID($1.integer(0)))
        }
    }

    /// Words of a search at most: each is a condition of the statement.
    public static let mostSearchWords = 8

    private static let someWithWord = Statement(
        """
        SELECT count(*) FROM (
            SELECT 1 FROM search_words WHERE room_nid = $1 AND word = $2 LIMIT 1000) AS first_ones
        """)

    /// How many events of each room have each word, up to a thousand. A range of a thousand entries at most for each pair.
    public func searchCounts(
        of words: [[UInt8]], in rooms: [RoomNID], _ reader: any Reader
    ) async throws -> [RoomNID: [Int]] {
        var counts: [RoomNID: [Int]] = [:]
        for room in rooms { counts[room] = [Int](repeating: 0, count: words.count) }
        let pairs = rooms.flatMap { room in words.indices.map { (room, $0) } }
        let sets: [[SQLValue]] = pairs.map { [$0.0.value, .blob(words[$0.1])] }
        for (pair, count) in try await reader.queryEach(Self.someWithWord, sets, { (pairs[$0], Int($1.integer(0))) }) {
            counts[pair.0]?[pair.1] = count
        }
        return counts
    }

    /// For one word, two words, and so on: the first drives, the others are looked up for each of its events.
    private static let hits: [Statement] = (0..<mostSearchWords).map { others in
        let conditions = (0..<others).map { other in
            """
             AND EXISTS (SELECT 1 FROM search_words w\(other) WHERE w\(other).room_nid = w.room_nid
                AND w\(other).word = $\(6 + other) AND w\(other).timestamp = w.timestamp
                AND w\(other).event_nid = w.event_nid)
            """
        }.joined()
        return Statement(
            """
            SELECT w.timestamp, w.event_nid FROM search_words w WHERE w.room_nid = $1 AND w.word = $2
                AND (w.timestamp, w.event_nid) < ($3, $4)\(conditions)
            ORDER BY w.timestamp DESC, w.event_nid DESC LIMIT $5
            """)
    }

    /// The newest events of rooms that have all of the words, older than a hit.
    ///
    /// One range of one index for each room, as long as the list of the rarest word there, which must be the first.
    ///
    /// - Parameter words: for each room its words, the rarest first; as many for all rooms.
    public func searchHits(
        _ words: [(room: RoomNID, words: [[UInt8]])], before hit: SearchHit, limit: Int, _ reader: any Reader
    ) async throws -> [RoomNID: [SearchHit]] {
        guard let count = words.first?.words.count, count > 0 else { return [:] }
        let sets: [[SQLValue]] = words.map { room, words in
            [
                room.value, .blob(words[0]), .integer(hit.timestamp), hit.event.value, .integer(Int64(limit)),
            ] + words.dropFirst().map { .blob($0) }
        }
        var found: [RoomNID: [SearchHit]] = [:]
        let rows = try await reader.queryEach(Self.hits[count - 1], sets) {
            (words[$0].room, SearchHit(timestamp: $1.integer(0), event: EventNID($1.integer(1))))
        }
        for (room, hit) in rows { found[room, default: []].append(hit) }
        return found
    }
}
