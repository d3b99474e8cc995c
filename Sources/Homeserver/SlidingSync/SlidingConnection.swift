import Database
import MatrixCore

/// A connection of sliding sync as one request sees it (MSC4186, "Connections"): what the client has been told of each room, and by
/// which configs.
struct SlidingConnection: Sendable {
    /// As it stands in the database; nil for one that begins.
    let stored: StoredSlidingConnection?
    /// Whether the client has come with the position behind what was pending.
    let confirmsPending: Bool
    /// What the client has got.
    var rooms: [RoomNID: SentRoom]
    /// The configs that `rooms` refer to.
    var configs: SlidingConfigs
    /// What is known to hold nothing new for the client, though something happened: up to which position, by which config
    /// and limit.
    var quiet: [RoomNID: Quiet] = [:]

    struct Quiet: Sendable, Equatable {
        var upTo: Int64
        var config: Int64
        var limit: Int
    }
}

/// The room configs that a connection has used, by numbers of its own.
struct SlidingConfigs: Sendable {
    private(set) var known: [Int64: RequiredState] = [:]
    private var numbers: [RequiredState: Int64] = [:]
    private var next: Int64 = 1

    /// Bytes that a connection's configs take at most; beyond it the connection begins anew.
    static let mostBytes = 262_144

    init() {}

    /// - Throws: ``DatabaseError/corrupt(_:)``.
    init(stored bytes: [UInt8]) throws {
        guard let root = try? JSONDocument(parsing: bytes, limits: .own).root else {
            throw DatabaseError.corrupt("the configs of a connection are unreadable")
        }
        for (name, rules) in root.members {
            guard let number = Int64(name) else { continue }
            known[number] = RequiredState(kept: rules)
            numbers[RequiredState(kept: rules)] = number
            next = max(next, number + 1)
        }
    }

    /// The number of a config, which gets one if it has none.
    mutating func number(of required: RequiredState) -> Int64 {
        if let number = numbers[required] { return number }
        defer { next += 1 }
        numbers[required] = next
        known[next] = required
        return next
    }

    /// What is kept: those in use.
    func encoded(using used: Set<Int64>) -> [UInt8] {
        let members = known.filter { used.contains($0.key) }.sorted { $0.key < $1.key }
        return JSON.object(JSONObject(members.map { (String($0.key), $0.value.json) })).encoded()
    }
}
