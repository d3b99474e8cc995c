import Synchronization

/// A row's number, of the kind of thing that `Entity` names: numbers of different things can't be mixed up.
public struct Numbered<Entity>: Hashable, Comparable, Sendable, CustomStringConvertible {
    public let rawValue: Int64

    public init(_ rawValue: Int64) { self.rawValue = rawValue }

    public static func < (left: Self, right: Self) -> Bool { left.rawValue < right.rawValue }
    public var description: String { String(rawValue) }
    public var value: SQLValue { .integer(rawValue) }
}

public enum UserEntity {}
public enum ServerEntity {}
public enum RoomEntity {}
public enum EventEntity {}
public enum EventTypeEntity {}
public enum StateKeyEntity {}
public enum StateEntity {}

public typealias UserNID = Numbered<UserEntity>
public typealias ServerNID = Numbered<ServerEntity>
public typealias RoomNID = Numbered<RoomEntity>
public typealias EventNID = Numbered<EventEntity>
public typealias EventTypeNID = Numbered<EventTypeEntity>
/// The number of a pair of event type and state key.
public typealias StateKeyNID = Numbered<StateKeyEntity>
/// A snapshot of a room's state: the number of its row in `state_nodes`. 0 is the empty state.
public typealias StateNID = Numbered<StateEntity>

/// Gives out numbers that nobody else gives out, taking a block of them from the database at a time.
///
/// The lock protects the block at hand; nothing is awaited while it is held.
public final class NumberSource: Sendable {
    private struct Block { var next: Int64 = 0; var end: Int64 = 0 }

    private let name: String
    private let blockSize: Int64
    private let block = Mutex(Block())
    private static let reserve = Statement("UPDATE counters SET next = next + $2 WHERE name = $1 RETURNING next")

    init(name: String, blockSize: Int64) {
        self.name = name
        self.blockSize = blockSize
    }

    /// Takes `count` consecutive numbers and returns the first.
    func take(_ count: Int64, _ engine: any Engine) async throws -> Int64 {
        while true {
            let taken: Int64? = block.withLock { block in
                guard block.end - block.next >= count else { return nil }
                defer { block.next += count }
                return block.next
            }
            if let taken { return taken }
            var write = Write()
            let wanted = max(blockSize, count)
            let place = write.returning(Self.reserve, .text(name), .integer(wanted))
            guard case .integer(let end)? = try await engine.write(write).rows[place].first?.first else {
                throw DatabaseError.corrupt("the counter \(name) is missing")
            }
            block.withLock { block in
                // Somebody else may have reserved meanwhile; the larger rest is kept, holes are allowed.
                if block.end - block.next < wanted { block = Block(next: end - wanted, end: end) }
            }
        }
    }
}
