import Database
import MatrixCore
import Synchronization

/// Which events a client wants by type and sender (Client-Server API, "Filtering"): `*` stands for any characters.
public struct EventFilter: Sendable {
    public var limit: Int?
    /// nil: all.
    private let types: TypePatterns?
    /// nil: none.
    private let notTypes: TypePatterns?
    private let senders: Set<ByteString>?
    private let notSenders: Set<ByteString>

    public init() {
        types = nil
        notTypes = nil
        senders = nil
        notSenders = []
    }

    /// - Throws: `M_BAD_JSON` where a member has the wrong type.
    public init(_ json: JSONView?) throws {
        limit = try json?.optionalInteger("limit").map { Int(clamping: $0) }
        types = try json?.optionalStrings("types").map { TypePatterns($0) }
        notTypes = try json?.optionalStrings("not_types").flatMap { $0.isEmpty ? nil : TypePatterns($0) }
        senders = try json?.optionalStrings("senders").map { Set($0.map { ByteString($0) }) }
        notSenders = Set(try json?.optionalStrings("not_senders")?.map { ByteString($0) } ?? [])
        if let limit, limit < 0 { throw MatrixError.badJSON("The filter's limit is negative.") }
    }

    /// Whether it looks at the type or sender at all.
    var isRestrictive: Bool { types != nil || notTypes != nil || senders != nil || !notSenders.isEmpty }

    func admits(type: String) -> Bool {
        if notTypes?.match(type) == true { return false }
        return types?.match(type) ?? true
    }

    func admits(sender: String) -> Bool {
        if notSenders.contains(ByteString(sender)) { return false }
        return senders.map { $0.contains(ByteString(sender)) } ?? true
    }
}

/// Which events of rooms a client wants.
public struct RoomEventFilter: Sendable {
    public var events: EventFilter
    public var lazyLoadsMembers: Bool
    public var includesRedundantMembers: Bool
    /// Whether what is unread is counted for each thread (`unread_thread_notifications`).
    public var separatesThreads: Bool
    var containsURL: Bool?
    var rooms: Set<ByteString>?
    var notRooms: Set<ByteString>

    public init() {
        events = EventFilter()
        lazyLoadsMembers = false
        includesRedundantMembers = false
        separatesThreads = false
        notRooms = []
    }

    public init(_ json: JSONView?) throws {
        events = try EventFilter(json)
        lazyLoadsMembers = try json?.optionalBool("lazy_load_members") ?? false
        includesRedundantMembers = try json?.optionalBool("include_redundant_members") ?? false
        containsURL = try json?.optionalBool("contains_url")
        separatesThreads = try json?.optionalBool("unread_thread_notifications") ?? false
        rooms = try json?.optionalStrings("rooms").map { Set($0.map { ByteString($0) }) }
        notRooms = Set(try json?.optionalStrings("not_rooms")?.map { ByteString($0) } ?? [])
    }

    func admits(_ room: RoomID) -> Bool {
        !notRooms.contains(ByteString(room.string)) && (rooms?.contains(ByteString(room.string)) ?? true)
    }

    var isRestrictive: Bool { events.isRestrictive || containsURL != nil }

    func admits(_ event: StoredEvent, _ context: RoomContext, _ version: RoomVersion) async throws -> Bool {
        guard isRestrictive else { return true }
        let parsed = try context.parse(event, version)
        return events.admits(type: parsed.type) && events.admits(sender: parsed.sender.string)
            && (containsURL.map { $0 == (parsed.content["url"]?.string != nil) } ?? true)
    }
}

/// Patterns of types, as many as a client likes: an event costs a look at all of them only if its type hasn't come lately (A14).
final class TypePatterns: Sendable {
    private let patterns: [TypePattern]
    /// Whether one of them matches; not more types than `most`.
    private let verdicts = Mutex<[ByteString: Bool]>([:])
    static let most = 64

    init(_ patterns: [String]) { self.patterns = patterns.map { TypePattern($0) } }

    func match(_ type: String) -> Bool {
        let key = ByteString(type)
        if let known = verdicts.withLock({ $0[key] }) { return known }
        let text = Array(type.utf8)
        let verdict = patterns.contains { $0.matches(text) }
        verdicts.withLock { verdicts in
            if verdicts.count >= Self.most { verdicts.removeAll(keepingCapacity: true) }
            verdicts[key] = verdict
        }
        return verdict
    }
}

/// A pattern in which `*` stands for any characters, matched in time proportional to pattern and text at worst multiplied
/// once: no backtracking over more than one star.
struct TypePattern: Sendable {
    private let pattern: [UInt8]

    init(_ pattern: String) { self.pattern = Array(pattern.utf8) }

    func matches(_ text: [UInt8]) -> Bool {
        var inPattern = 0, inText = 0
        var star: (pattern: Int, text: Int)?
        while inText < text.count {
            if inPattern < pattern.count, pattern[inPattern] == UInt8(ascii: "*") {
                star = (inPattern, inText)
                inPattern += 1
            } else if inPattern < pattern.count, pattern[inPattern] == text[inText] {
                inPattern += 1
                inText += 1
            } else if let (starPattern, starText) = star {
                // The last star takes one more character; earlier ones never need to take more.
                inPattern = starPattern + 1
                inText = starText + 1
                star = (starPattern, inText)
            } else {
                return false
            }
        }
        return pattern[inPattern...].allSatisfy { $0 == UInt8(ascii: "*") }
    }
}
