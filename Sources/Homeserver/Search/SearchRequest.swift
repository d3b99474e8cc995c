import Database
import MatrixCore

/// What is searched for (`POST /search`, category `room_events`).
public struct SearchRequest: Sendable {
    public enum Order: String, Sendable {
        case recent, rank
    }

    public enum Group: String, Sendable {
        case room = "room_id"
        case sender
    }

    /// What is shown around each result.
    public struct Surrounding: Sendable {
        public var before: Int
        public var after: Int
        public var includesProfiles: Bool
    }

    /// The words of the search, each once.
    var words: [[UInt8]]
    var keys: Set<SearchWords.Key>
    var filter: RoomEventFilter
    var order: Order
    var surrounding: Surrounding?
    var includesState: Bool
    var groups: [Group]
    var limit: Int
    var start: Start

    /// Where a page begins.
    enum Start: Sendable {
        case beginning
        /// Behind a hit, and how many results were shown before.
        case behind(SearchHit, shown: Int)
        /// So many results of those that are ranked were shown.
        case offset(Int)
    }

    static let defaultLimit = 10
    static let largestPage = 100
    /// Events shown before or after each result.
    static let mostAround = 20

    /// - Parameters:
    ///   - criteria: the member `room_events` of the body.
    ///   - nextBatch: the token in the query.
    /// - Throws: `M_BAD_JSON`, `M_MISSING_PARAM`, `M_INVALID_PARAM`.
    public init(_ criteria: JSONView, nextBatch: String?) throws {
        let term = try criteria.requiredString("search_term")
        var words: [[UInt8]] = []
        for word in SearchWords.split(term) where !words.contains(word) { words.append(word) }
        self.words = Array(words.prefix(Database.mostSearchWords))
        let keys: [SearchWords.Key]? = try Self.values(criteria.optionalStrings("keys"), "keys")
        self.keys = Set(keys ?? SearchWords.Key.allCases)
        filter = try RoomEventFilter(try criteria.optionalObject("filter"))
        let order: [Order]? = try Self.values(criteria.optionalString("order_by").map { [$0] }, "order_by")
        self.order = order?.first ?? .rank
        surrounding = try criteria.optionalObject("event_context").map { context in
            func limit(_ name: String) throws -> Int {
                Int(min(max(try context.optionalInteger(name) ?? 5, 0), Int64(Self.mostAround)))
            }
            return Surrounding(
                before: try limit("before_limit"), after: try limit("after_limit"),
                includesProfiles: try context.optionalBool("include_profile") ?? false)
        }
        includesState = try criteria.optionalBool("include_state") ?? false
        let groups = try criteria.optionalObject("groupings")?.optionalArray("group_by") ?? []
        let names = try groups.compactMap { group in
            guard group.isObject else { throw MatrixError.badJSON("“group_by” must hold objects.") }
            return try group.optionalString("key")
        }
        self.groups = try Self.values(names, "key") ?? []
        limit = min(max(filter.events.limit ?? Self.defaultLimit, 1), Self.largestPage)
        start = try nextBatch.map { [order = self.order] in try Self.start($0, order) } ?? .beginning
    }

    private static func values<Value: RawRepresentable<String>>(
        _ texts: [String]?, _ name: String
    ) throws -> [Value]? {
        try texts?.map { text in
            guard let value = Value(rawValue: text) else {
                throw MatrixError.invalidParam("“\(text)” is nothing that “\(name)” can be.")
            }
            return value
        }
    }

    /// How many results a token may say were shown already: any number that a search comes to, and one that more can be added to.
    private static let mostShown: Int64 = 1 << 40

    private static func start(_ token: String, _ order: Order) throws -> Start {
        let numbers = token.dropFirst().split(separator: "_", omittingEmptySubsequences: false).map { Int64($0) }
        switch (token.utf8.first, numbers.count, order) {
        case (UInt8(ascii: "t"), 3, .recent):
            if let timestamp = numbers[0], let event = numbers[1], let shown = numbers[2],
                (0...mostShown).contains(shown)
            {
                return .behind(SearchHit(timestamp: timestamp, event: EventNID(event)), shown: Int(shown))
            }
        case (UInt8(ascii: "r"), 1, .rank):
            if let offset = numbers[0], offset > 0 { return .offset(Int(clamping: offset)) }
        default: break
        }
        throw MatrixError.invalidParam("“next_batch” is not a token that this server gave out for this search.")
    }

    static func token(behind hit: SearchHit, shown: Int) -> String { "t\(hit.timestamp)_\(hit.event)_\(shown)" }

    static func token(offset: Int) -> String { "r\(offset)" }
}
