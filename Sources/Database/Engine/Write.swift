/// A unit of writing: statements that take effect all together or not at all.
///
/// A write is data, not a closure. It can therefore be put into one transaction with the writes of others (group
/// commit), be tried again when one of those fails, and on a networked engine go out in a single flush, so that no round
/// trip happens while the lock over positions is held.
public struct Write: Sendable {
    struct Step: Sendable {
        var statement: Statement
        var values: [SQLValue]
        /// The number of rows the statement must change; otherwise the write fails with ``DatabaseError/conflict(_:)``.
        var expectedChanges: Int?
        var expectation: String
        /// Whether the rows the statement returns are kept for the caller.
        var returnsRows: Bool
    }

    private(set) var steps: [Step] = []
    /// How many of them return rows.
    private var returning = 0
    /// How many commit positions the write takes.
    public private(set) var positions = 0
    /// Who must hear of it once it is committed.
    public var topics: [Topic] = []

    /// Whether it wants a transaction of its own on an engine where transactions run side by side: writes that lock several
    /// rows in an order of theirs would be in one another's way when put together.
    public var standsAlone = false

    public init() {}

    /// The positions that the write gets. One that somebody must hear of has one at least: by it others know how far they
    /// have heard.
    var positionsTaken: Int { max(positions, topics.isEmpty ? 0 : 1) }

    public var isEmpty: Bool { steps.isEmpty }

    /// How many statements there are.
    public var count: Int { steps.count }

    public mutating func run(_ statement: Statement, _ values: SQLValue...) { run(statement, values) }

    public mutating func run(_ statement: Statement, _ values: [SQLValue]) {
        steps.append(Step(statement: statement, values: values, expectation: "", returnsRows: false))
    }

    /// Adds a statement which must change exactly `changes` rows. `otherwise` names what does not hold.
    public mutating func expect(
        _ changes: Int, otherwise: String, _ statement: Statement, _ values: SQLValue...
    ) {
        expect(changes, otherwise: otherwise, statement, values)
    }

    public mutating func expect(_ changes: Int, otherwise: String, _ statement: Statement, _ values: [SQLValue]) {
        steps.append(
            Step(
                statement: statement, values: values, expectedChanges: changes, expectation: otherwise,
                returnsRows: false))
    }

    /// Adds a statement whose rows (`RETURNING`) are wanted, and answers their place in ``WriteResult/rows``.
    public mutating func returning(_ statement: Statement, _ values: SQLValue...) -> Int {
        returning(statement, values)
    }

    public mutating func returning(_ statement: Statement, _ values: [SQLValue]) -> Int {
        steps.append(Step(statement: statement, values: values, expectation: "", returnsRows: true))
        defer { returning += 1 }
        return returning
    }

    /// Takes the next commit position.
    public mutating func takePosition() -> SQLValue {
        defer { positions += 1 }
        return .position(positions)
    }
}

/// Whom a committed write concerns: those wait for it, on this node and on the others.
public enum Topic: Sendable, Hashable {
    /// Something in the room that its members see.
    case room(RoomNID)
    /// Something in the room that one of its members alone sees.
    case roomOf(RoomNID, UserNID)
    /// Something that one user's devices see.
    case user(UserNID)
    /// The rooms of a user, or what the user is in them, are others now.
    case memberships(UserNID)
    /// A user came, went, or said something else of themselves.
    case presence(UserNID)
    /// A user's push rules are others now.
    case pushRules(UserNID)
    /// A stored event is another now: a redaction took effect on it.
    case event(EventNID)
    /// A user's devices or their keys are others now.
    case deviceList(UserNID)
    /// The same of a member of the room; the room itself is as it was.
    case deviceListIn(RoomNID)
    /// Something waits to be sent to another server.
    case destination(ServerNID)
    /// A user's profile is another now.
    case profile(UserNID)
    /// A receipt that members of the room see has moved.
    case receipts(RoomNID)
    /// A user is typing in the room for so many milliseconds, or has stopped (0). Nothing else in the database tells it.
    case typing(RoomNID, UserNID, Int64)
    /// What has changed is not known; it may be anything.
    case everything
}

/// What is told of a commit.
public struct Commit: Sendable {
    /// Everything up to here is committed, visible and told.
    public let position: Int64
    public let topics: [Topic]
    /// Whether another node has made it.
    public let isElsewhere: Bool
}

/// What a committed write gave.
public struct WriteResult: Sendable {
    /// The first of the positions that the write took; meaningless if it took none.
    public let firstPosition: Int64
    /// The rows of each statement added with `returning`, as values in the order of columns.
    public let rows: [[[SQLValue]]]

    public init(firstPosition: Int64, rows: [[[SQLValue]]]) {
        self.firstPosition = firstPosition
        self.rows = rows
    }
}
