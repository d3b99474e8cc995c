import MatrixCore
import Synchronization

/// The type of an event, as a name of its own: types are compared as bytes.
public struct EventType: Hashable, Sendable, CustomStringConvertible {
    public let name: String

    public init(_ name: String) { self.name = name }

    public static func == (left: Self, right: Self) -> Bool { left.name.hasSameBytes(as: right.name) }

    public func hash(into hasher: inout Hasher) {
        var name = name
        name.withUTF8 { hasher.combine(bytes: UnsafeRawBufferPointer($0)) }
    }

    public var description: String { name }
}

/// An identifier that is kept in a table of its own with a number.
protocol NumberedIdentifier: Hashable, Sendable {
    associatedtype Entity
    /// Selects the number of an identifier.
    static var find: Statement { get }
    /// Selects the columns of an identifier by its number.
    static var name: Statement { get }
    /// Adds an identifier and returns its number, or does nothing if it is there.
    static var add: Statement { get }
    /// The values of `find` and `add`.
    var columns: [SQLValue] { get }
    init(row: any Row)
}

/// Finds the numbers of identifiers and the identifiers of numbers, and keeps those last used in memory.
///
/// Identifiers are added in short transactions of their own, before the write that uses them, and in the order of their
/// bytes: batches don't deadlock, and what is rejected afterwards costs a row at most.
final class NumberedIdentifiers<Identifier: NumberedIdentifier>: Sendable {
    typealias Number = Numbered<Identifier.Entity>

    private struct Known {
        var numbers: BoundedCache<Identifier, Int64>
        var identifiers: BoundedCache<Int64, Identifier>
    }

    /// The lock protects both caches; nothing is awaited while it is held.
    private let known: Mutex<Known>

    /// - Parameter capacity: identifiers kept at most.
    init(capacity: Int) {
        known = Mutex(Known(numbers: BoundedCache(capacity: capacity), identifiers: BoundedCache(capacity: capacity)))
    }

    private func remember(_ pairs: [(Identifier, Int64)]) {
        known.withLock { known in
            for (identifier, number) in pairs {
                known.numbers.insert(number, for: identifier, size: 1)
                known.identifiers.insert(identifier, for: number, size: 1)
            }
        }
    }

    /// The numbers of those identifiers that are in the database.
    func existing(_ identifiers: [Identifier], _ engine: any Engine) async throws -> [Identifier: Number] {
        var found: [Identifier: Number] = [:]
        var missing: [Identifier] = []
        known.withLock { known in
            for identifier in identifiers {
                if let number = known.numbers[identifier] {
                    found[identifier] = Number(number)
                } else {
                    missing.append(identifier)
                }
            }
        }
        if missing.isEmpty { return found }
        let asked = missing
        let read = try await engine.readOnce { reader in
            try await reader.queryEach(Identifier.find, asked.map(\.columns)) { (asked[$0], $1.integer(0)) }
        }
        remember(read)
        for (identifier, number) in read { found[identifier] = Number(number) }
        return found
    }

    /// The number of an identifier, if it is in the database.
    func existing(_ identifier: Identifier, _ engine: any Engine) async throws -> Number? {
        if let number = known.withLock({ $0.numbers[identifier] }) { return Number(number) }
        return try await existing([identifier], engine)[identifier]
    }

    /// The number of an identifier; if it has none it gets one.
    func number(_ identifier: Identifier, _ engine: any Engine) async throws -> Number {
        if let number = known.withLock({ $0.numbers[identifier] }) { return Number(number) }
        guard let number = try await numbers([identifier], engine)[identifier] else {
            throw DatabaseError.corrupt("\(identifier) has got no number")
        }
        return number
    }

    /// The numbers of all the identifiers; those that have none get one.
    func numbers(_ identifiers: [Identifier], _ engine: any Engine) async throws -> [Identifier: Number] {
        var found = try await existing(identifiers, engine)
        let missing = Set(identifiers.filter { found[$0] == nil })
        if missing.isEmpty { return found }
        var write = Write()
        write.standsAlone = true
        let adding = add(missing, to: &write)
        found.merge(added(adding, try await engine.write(write))) { $1 }
        // Those that somebody else has added meanwhile.
        let others = missing.filter { found[$0] == nil }
        if !others.isEmpty { found.merge(try await existing(Array(others), engine)) { $1 } }
        return found
    }

    /// Identifiers that a write adds, and where in its result their numbers stand.
    typealias Adding = [(identifier: Identifier, place: Int)]

    /// Has those of the identifiers added that have no number yet.
    func add(missing identifiers: [Identifier], to write: inout Write, _ engine: any Engine) async throws -> Adding {
        let found = try await existing(identifiers, engine)
        return add(Set(identifiers.filter { found[$0] == nil }), to: &write)
    }

    private func add(_ missing: Set<Identifier>, to write: inout Write) -> Adding {
        missing.map { ($0, $0.columns) }.sorted { Self.inOrder($0.1, $1.1) }
            .map { ($0, write.returning(Identifier.add, $1)) }
    }

    /// Remembers the numbers that a write has given; those that were there before it, it doesn't know.
    @discardableResult
    func added(_ adding: Adding, _ result: WriteResult) -> [Identifier: Number] {
        var pairs: [(Identifier, Int64)] = []
        for (identifier, place) in adding {
            if case .integer(let number)? = result.rows[place].first?.first { pairs.append((identifier, number)) }
        }
        remember(pairs)
        return Dictionary(pairs.map { ($0, Number($1)) }) { $1 }
    }

    /// The identifier of a number.
    func identifier(_ number: Number, _ engine: any Engine) async throws -> Identifier? {
        if let identifier = known.withLock({ $0.identifiers[number.rawValue] }) { return identifier }
        return try await identifiers([number], engine)[number]
    }

    /// The identifiers of numbers.
    func identifiers(_ numbers: [Number], _ engine: any Engine) async throws -> [Number: Identifier] {
        var found: [Number: Identifier] = [:]
        var missing: [Int64] = []
        known.withLock { known in
            for number in numbers {
                if let identifier = known.identifiers[number.rawValue] {
                    found[number] = identifier
                } else {
                    missing.append(number.rawValue)
                }
            }
        }
        if missing.isEmpty { return found }
        let asked = missing
        let read = try await engine.readOnce { reader in
            try await reader.queryEach(Identifier.name, asked.map { [.integer($0)] }) {
                (Identifier(row: $1), asked[$0])
            }
        }
        remember(read)
        for (identifier, number) in read { found[Number(number)] = identifier }
        return found
    }

    private static func inOrder(_ left: [SQLValue], _ right: [SQLValue]) -> Bool {
        for case (.blob(let one), .blob(let other)) in zip(left, right) where one != other {
            return one.lexicographicallyPrecedes(other)
        }
        return false
    }
}

extension UserID: NumberedIdentifier {
    typealias Entity = UserEntity
    static let find = Statement("SELECT user_nid FROM users WHERE user_id = $1")
    static let name = Statement("SELECT user_id FROM users WHERE user_nid = $1")
    static let add = Statement("INSERT INTO users (user_id) VALUES ($1) ON CONFLICT DO NOTHING RETURNING user_nid")
    var columns: [SQLValue] { [.identifier(string)] }
    init(row: any Row) { self.init(unchecked: row.text(0)) }
}

extension ServerName: NumberedIdentifier {
    typealias Entity = ServerEntity
    static let find = Statement("SELECT server_nid FROM servers WHERE server_name = $1")
    static let name = Statement("SELECT server_name FROM servers WHERE server_nid = $1")
    static let add = Statement(
        "INSERT INTO servers (server_name) VALUES ($1) ON CONFLICT DO NOTHING RETURNING server_nid")
    var columns: [SQLValue] { [.identifier(string)] }
    init(row: any Row) { self.init(unchecked: row.text(0)) }
}

extension EventType: NumberedIdentifier {
    typealias Entity = EventTypeEntity
    static let find = Statement("SELECT type_nid FROM event_types WHERE type = $1")
    static let name = Statement("SELECT type FROM event_types WHERE type_nid = $1")
    static let add = Statement("INSERT INTO event_types (type) VALUES ($1) ON CONFLICT DO NOTHING RETURNING type_nid")
    var columns: [SQLValue] { [.identifier(name)] }
    init(row: any Row) { self.init(row.text(0)) }
}

extension StateKey: NumberedIdentifier {
    typealias Entity = StateKeyEntity
    static let find = Statement("SELECT state_key_nid FROM state_keys WHERE type = $1 AND state_key = $2")
    static let name = Statement("SELECT type, state_key FROM state_keys WHERE state_key_nid = $1")
    static let add = Statement(
        "INSERT INTO state_keys (type, state_key) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING state_key_nid")
    var columns: [SQLValue] { [.identifier(type), .identifier(key)] }
    init(row: any Row) { self.init(type: row.text(0), key: row.text(1)) }
}

extension Database {
    /// The numbers of users; those that have none get one.
    public func numbers(ofUsers users: [UserID]) async throws -> [UserID: UserNID] {
        try await self.users.numbers(users, engine)
    }

    /// The numbers of those of the users that are in the database.
    public func existingNumbers(ofUsers users: [UserID]) async throws -> [UserID: UserNID] {
        try await self.users.existing(users, engine)
    }

    public func number(ofUser user: UserID) async throws -> UserNID {
        try await users.number(user, engine)
    }

    /// The number of a user who is in the database.
    public func existingNumber(ofUser user: UserID) async throws -> UserNID? {
        try await users.existing(user, engine)
    }

    public func user(_ number: UserNID) async throws -> UserID? { try await users.identifier(number, engine) }

    public func users(_ numbers: [UserNID]) async throws -> [UserNID: UserID] {
        try await users.identifiers(numbers, engine)
    }

    public func numbers(ofServers servers: [ServerName]) async throws -> [ServerName: ServerNID] {
        try await self.servers.numbers(servers, engine)
    }

    public func servers(_ numbers: [ServerNID]) async throws -> [ServerNID: ServerName] {
        try await servers.identifiers(numbers, engine)
    }

    public func numbers(ofTypes types: [EventType]) async throws -> [EventType: EventTypeNID] {
        try await eventTypes.numbers(types, engine)
    }

    public func number(ofServer server: ServerName) async throws -> ServerNID {
        try await servers.number(server, engine)
    }

    /// The number of a server that is in the database.
    public func existingNumber(ofServer server: ServerName) async throws -> ServerNID? {
        try await servers.existing(server, engine)
    }

    public func number(ofType type: String) async throws -> EventTypeNID {
        try await eventTypes.number(EventType(type), engine)
    }

    public func number(ofStateKey key: StateKey) async throws -> StateKeyNID {
        try await stateKeys.number(key, engine)
    }

    public func existingNumbers(ofTypes types: [EventType]) async throws -> [EventType: EventTypeNID] {
        try await eventTypes.existing(types, engine)
    }

    /// The number of a type that is in the database.
    public func existingNumber(ofType type: EventType) async throws -> EventTypeNID? {
        try await eventTypes.existing(type, engine)
    }

    public func types(_ numbers: [EventTypeNID]) async throws -> [EventTypeNID: EventType] {
        try await eventTypes.identifiers(numbers, engine)
    }

    public func numbers(ofStateKeys keys: [StateKey]) async throws -> [StateKey: StateKeyNID] {
        try await stateKeys.numbers(keys, engine)
    }

    /// The number of a state key that is in the database.
    public func existingNumber(ofStateKey key: StateKey) async throws -> StateKeyNID? {
        try await stateKeys.existing(key, engine)
    }

    public func stateKey(_ number: StateKeyNID) async throws -> StateKey? {
        try await stateKeys.identifier(number, engine)
    }

    public func type(_ number: EventTypeNID) async throws -> EventType? {
        try await eventTypes.identifier(number, engine)
    }

    public func existingNumbers(ofStateKeys keys: [StateKey]) async throws -> [StateKey: StateKeyNID] {
        try await stateKeys.existing(keys, engine)
    }

    private static let ofType = Statement("SELECT state_key_nid FROM state_keys WHERE type = $1")

    /// The numbers of all state keys of a type, in whatever room they are used. One range of one index.
    public func numbers(ofStateKeysOfType type: String, _ reader: any Reader) async throws -> Set<StateKeyNID> {
        Set(try await reader.query(Self.ofType, [.identifier(type)]) { StateKeyNID($0.integer(0)) })
    }

    public func stateKeys(_ numbers: [StateKeyNID]) async throws -> [StateKeyNID: StateKey] {
        try await stateKeys.identifiers(numbers, engine)
    }
}

extension Database {
    /// Gives numbers to whatever of these events has none yet, in one write: one by one they would be thousands.
    public func number(_ events: [Event]) async throws {
        let keys = events.compactMap(\.stateMapKey)
        let members = keys.compactMap { $0.type == "m.room.member" ? UserID($0.key) : nil }
        let users = Array(Set(events.map(\.sender) + members))
        var write = Write()
        write.standsAlone = true
        let newUsers = try await self.users.add(missing: users, to: &write, engine)
        let newServers = try await servers.add(missing: Array(Set(users.map(\.server))), to: &write, engine)
        let newKeys = try await stateKeys.add(missing: Array(Set(keys)), to: &write, engine)
        let newTypes = try await eventTypes.add(
            missing: Array(Set(events.map { EventType($0.type) })), to: &write, engine)
        if write.isEmpty { return }
        let result = try await engine.write(write)
        self.users.added(newUsers, result)
        servers.added(newServers, result)
        stateKeys.added(newKeys, result)
        eventTypes.added(newTypes, result)
    }
}
