/// One statement with its values, as it goes to the server.
struct PostgreSQLCommand: Sendable {
    let statement: Statement
    let values: [SQLValue]
    /// How many rows it must change.
    var expectedChanges: Int?
    /// What is added to the number of a position to get its distance from the transaction's last position.
    var positionOffset: Int64 = 0

    init(_ statement: Statement, _ values: [SQLValue] = []) {
        self.statement = statement
        self.values = values
    }

    /// Many executions in one, instead of the values.
    private(set) var batch: PostgreSQLBatch?

    init(_ statement: Statement, _ batch: PostgreSQLBatch) {
        self.init(statement, batch.sets[0])
        self.batch = batch
    }

    /// What a prepared statement is found by: the statement, and how its text is changed.
    struct Form: Hashable {
        let number: Int
        let expects: Bool
        /// A bit for each parameter that is a position.
        let positions: UInt64
        let batch: PostgreSQLBatch.Form?

        var name: String {
            let batch = batch.map { "\($0.kind.letter)\($0.bytes)" } ?? ""
            return "s\(number)_\(expects ? 1 : 0)_\(positions)\(batch)"
        }
    }

    var form: Form {
        var positions: UInt64 = 0
        for (index, value) in values.enumerated() where value.isPosition { positions |= 1 << UInt64(index) }
        return Form(
            number: statement.number, expects: expectedChanges != nil, positions: positions, batch: batch?.form)
    }

    /// The text for the server.
    ///
    /// A position becomes a distance from the last position that the transaction took (`currval`), since the number itself is
    /// not known when the statement is sent. An expectation becomes a function that fails, so that the server itself gives the
    /// transaction up, and all can go out in one flush.
    var sql: String {
        let form = form
        var text = batch?.sql(statement.sql, positions: form.positions) ?? statement.sql
        if batch == nil, form.positions != 0 {
            text = Self.replacingParameters(of: text) { number in
                form.positions & (1 << UInt64(number - 1)) == 0 ? "$\(number)" : "(currval('positions') + $\(number))"
            }
        }
        if form.expects {
            text = """
                WITH changed AS (\(text) RETURNING 1)
                SELECT roost_expect(count(*), $\(values.count + 1)::bigint) FROM changed
                """
        }
        return text
    }

    /// Puts something else in the places of a statement's parameters (`$1`, `$2`, …), whose numbers the closure is told.
    static func replacingParameters(of sql: String, by replacement: (Int) -> String) -> String {
        var result: [UInt8] = []
        let bytes = Array(sql.utf8)
        var index = 0
        while index < bytes.count {
            guard bytes[index] == UInt8(ascii: "$") else {
                result.append(bytes[index])
                index += 1
                continue
            }
            var number = 0
            index += 1
            while index < bytes.count, bytes[index] &- 0x30 < 10 {
                number = number * 10 + Int(bytes[index] - 0x30)
                index += 1
            }
            result += Array((number > 0 ? replacement(number) : "$").utf8)
        }
        return String(decoding: result, as: UTF8.self)
    }
}

/// Commands that go out in one flush, and what is done with their results. Used by the loop's thread alone once it is sent.
final class PostgreSQLRequest: @unchecked Sendable {
    let commands: [PostgreSQLCommand]
    private let done: (Result<[PostgreSQLResult], PostgreSQLFailure>) -> Void
    /// When the connection is given up if the server has not answered, in nanoseconds of the monotonic clock.
    var deadline: UInt64 = .max
    fileprivate(set) var results: [PostgreSQLResult] = []
    private var failure: PostgreSQLFailure?
    private var isFinished = false

    init(_ commands: [PostgreSQLCommand], done: @escaping (Result<[PostgreSQLResult], PostgreSQLFailure>) -> Void) {
        self.commands = commands
        self.done = done
    }

    func add(_ result: PostgreSQLResult) { results.append(result) }

    /// Notes the first failure; what follows is its consequence.
    func note(_ failure: PostgreSQLFailure) { if self.failure == nil { self.failure = failure } }

    func finish() {
        if isFinished { return }
        isFinished = true
        if let failure { done(.failure(failure)) } else { done(.success(results)) }
    }
}

/// Why a request failed.
struct PostgreSQLFailure: Error {
    /// The place of the command that failed; nil if it was the connection.
    var command: Int?
    /// The five characters by which SQL tells errors apart; empty if the connection failed.
    var state: String
    var message: String

    /// Private to `roost_expect`.
    static let expectation = "RX001"

    /// Two transactions were in each other's way; it may succeed when tried again.
    var isCollision: Bool { state == "40001" || state == "40P01" }

    var error: DatabaseError {
        if state.hasPrefix("23") { return .constraint(message) }
        switch state {
        case Self.expectation: return .conflict(message)
        case "57014": return .interrupted
        case "XX001", "XX002": return .corrupt(message)
        case "": return .unavailable(message)
        case "55P03": return .unavailable("another session holds a lock for too long (\(message))")
        // Connection exceptions, lack of resources (a full disk among them), the operator's doing, a server that only reads.
        case _
        where state.hasPrefix("08") || state.hasPrefix("53") || state.hasPrefix("57") || state == "25006"
            || state == "25P03" || state == "40001" || state == "40P01":
            return .unavailable(message)
        default: return .engine(code: 0, message: "\(message) (SQLSTATE \(state))")
        }
    }
}
