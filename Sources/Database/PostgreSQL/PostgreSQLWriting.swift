import Logging

extension Write.Step {
    /// Whether it may be one with others like it: nothing is wanted of it but that it is carried out, or that each changes one row, or
    /// rows of which can be told for which of them they are.
    fileprivate var mayJoin: Bool {
        statement.isIndependent && expectedChanges ?? 1 == 1 && (!returnsRows || kind.tellsRowsApart)
    }

    fileprivate var kind: PostgreSQLBatch.Kind { PostgreSQLBatch.Kind(changing: statement) }

    /// Whether it is another execution of the same statement.
    fileprivate func isLike(_ other: Write.Step) -> Bool {
        statement.number == other.statement.number && mayJoin && returnsRows == other.returnsRows
            && expectedChanges == other.expectedChanges
            && zip(values, other.values).allSatisfy { $0.isPosition == $1.isPosition }
    }
}

/// Puts writes into transactions and sends each transaction in one flush. Belongs to the loop.
///
/// Writes that take positions go together, behind the lock over positions; the others by themselves. While a
/// transaction is under way the next writes gather, up to fifty; two with positions may be under way, so that the second
/// stands at the lock when the first is through.
final class PostgreSQLWriting {
    typealias Answer = (Result<WriteResult, any Error>) -> Void

    private struct Pending {
        let write: Write
        let answer: Answer
        let deadline: UInt64
        var attempts = 0
    }

    /// Writes of one transaction.
    private struct Batch {
        var pending: [Pending]
        let takesPositions: Bool
    }

    private unowned let core: PostgreSQLCore
    private var ordered: [Pending] = []
    private var plain: [Pending] = []
    /// Parts of batches that have failed, which go first.
    private var again: [Batch] = []
    private var orderedUnderWay = 0
    private var plainUnderWay = 0
    private var isClosing = false

    static let writesPerCommit = 50
    private static let mostOrderedUnderWay = 2
    private static let mostPlainUnderWay = 2
    /// Writes that may wait; the next one fails at once.
    private static let mostWaiting = 20_000
    private static let attempts = 10

    init(core: PostgreSQLCore) { self.core = core }

    var isIdle: Bool {
        ordered.isEmpty && plain.isEmpty && again.isEmpty && orderedUnderWay == 0 && plainUnderWay == 0
    }

    func close() { isClosing = true }

    func add(_ write: Write, _ answer: @escaping Answer) {
        if isClosing { return answer(.failure(DatabaseError.closed)) }
        guard ordered.count + plain.count < Self.mostWaiting else {
            return answer(.failure(DatabaseError.unavailable("too many writes wait for the database")))
        }
        let pending = Pending(
            write: write, answer: answer, deadline: MonotonicTime.nanoseconds() + PostgreSQLCore.waitLimit)
        if write.positionsTaken > 0 { ordered.append(pending) } else { plain.append(pending) }
    }

    /// Sends what may be sent. Called after each round of the loop, so that what came in one round goes together.
    func tend(_ now: UInt64) -> UInt64 {
        while let index = again.firstIndex(where: { mayStartAgain($0) }) { start(again.remove(at: index)) }
        while !ordered.isEmpty, mayStart(true) {
            start(Batch(pending: Self.take(&ordered), takesPositions: true))
        }
        while !plain.isEmpty, mayStart(false) {
            start(Batch(pending: Self.take(&plain), takesPositions: false))
        }
        expire(&ordered, now)
        expire(&plain, now)
        return min(ordered.first?.deadline ?? .max, plain.first?.deadline ?? .max)
    }

    /// A second transaction with positions only begins when it is full: before that, what waits does better to gather, since
    /// each costs a sync of the server's disk, and the one has to wait for the other's.
    private func mayStart(_ takesPositions: Bool) -> Bool {
        if !takesPositions { return plainUnderWay < Self.mostPlainUnderWay }
        return orderedUnderWay == 0
            || (ordered.count >= Self.writesPerCommit && orderedUnderWay < Self.mostOrderedUnderWay)
    }

    private func mayStartAgain(_ batch: Batch) -> Bool {
        batch.takesPositions
            ? orderedUnderWay < Self.mostOrderedUnderWay : plainUnderWay < Self.mostPlainUnderWay
    }

    /// The next writes of a transaction; one that must stand alone does.
    private static func take(_ waiting: inout [Pending]) -> [Pending] {
        var count = 1
        if !waiting[0].write.standsAlone {
            while count < min(writesPerCommit, waiting.count), !waiting[count].write.standsAlone { count += 1 }
        }
        defer { waiting.removeFirst(count) }
        return Array(waiting[..<count])
    }

    private func expire(_ waiting: inout [Pending], _ now: UInt64) {
        while let first = waiting.first, first.deadline <= now {
            waiting.removeFirst()
            first.answer(.failure(DatabaseError.unavailable("it takes too long over the writes before this one")))
        }
    }

    // MARK: - Sending

    private func start(_ batch: Batch) {
        if batch.takesPositions { orderedUnderWay += 1 } else { plainUnderWay += 1 }
        core.writers.borrow(
            level: 0,
            .init(deadline: batch.pending[0].deadline) { [self] outcome in
                switch outcome {
                case .success(let connection): send(batch, on: connection)
                case .failure(let error):
                    ended(batch)
                    for pending in batch.pending { pending.answer(.failure(error)) }
                }
            })
    }

    private func ended(_ batch: Batch) {
        if batch.takesPositions { orderedUnderWay -= 1 } else { plainUnderWay -= 1 }
    }

    private static let begin = Statement("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
    private static let takePositions = Statement("SELECT roost_take_positions($1)")
    /// Tells what has changed, durably and to those who listen.
    private static let tell = Statement("SELECT roost_tell($1, $2)")
    private static let commit = Statement("COMMIT")
    private static let rollback = Statement("ROLLBACK")

    /// What each command of a transaction belongs to.
    private struct Plan {
        var commands: [PostgreSQLCommand] = []
        /// The write of each command, and of its steps the place; nil for the transaction's own.
        var owners: [(write: Int, step: Int)?] = []
        var positions: Int64 = 0
        /// How far into the transaction's positions each write's begin.
        var offsets: [Int64] = []
        var topics: [Topic] = []

        mutating func add(_ command: PostgreSQLCommand, _ owner: (Int, Int)? = nil) {
            commands.append(command)
            owners.append(owner)
        }
    }

    private func plan(_ batch: Batch) -> Plan {
        var plan = Plan()
        plan.add(PostgreSQLCommand(Self.begin))
        for pending in batch.pending {
            plan.offsets.append(plan.positions)
            plan.positions += Int64(pending.write.positionsTaken)
            plan.topics += pending.write.topics
        }
        if batch.takesPositions {
            plan.add(PostgreSQLCommand(Self.takePositions, [.integer(plan.positions)]))
        }
        for (index, pending) in batch.pending.enumerated() {
            let offset = plan.offsets[index] - plan.positions + 1
            var rest = pending.write.steps[...]
            while let step = rest.first {
                let same = step.mayJoin ? rest.prefix { $0.isLike(step) } : rest.prefix(1)
                for var command in PostgreSQLBatch.commands(step.kind, step.statement, same.map(\.values)) {
                    command.expectedChanges = step.expectedChanges.map { $0 * (command.batch?.sets.count ?? 1) }
                    command.positionOffset = offset
                    plan.add(command, (index, rest.startIndex))
                    rest = rest.dropFirst(command.batch?.sets.count ?? 1)
                }
            }
        }
        if batch.takesPositions {
            plan.add(PostgreSQLCommand(Self.tell, [.integer(core.node), .blob(Topic.pack(plan.topics))]))
        }
        // One statement is a transaction by itself.
        if plan.commands.count == 2 {
            plan.commands.removeFirst()
            plan.owners.removeFirst()
        } else {
            plan.add(PostgreSQLCommand(Self.commit))
        }
        return plan
    }

    private func send(_ batch: Batch, on connection: PostgreSQLConnection) {
        let plan = plan(batch)
        let request = PostgreSQLRequest(plan.commands) { [self] outcome in
            ended(batch)
            switch outcome {
            case .success(let results):
                core.writers.giveBack(connection, level: 0)
                succeeded(batch, plan, results)
            case .failure(let failure):
                if !connection.isBroken, plan.commands.count > 1 {
                    let rollback = PostgreSQLRequest([PostgreSQLCommand(Self.rollback)]) { _ in }
                    rollback.deadline = MonotonicTime.nanoseconds() + PostgreSQLCore.requestLimit
                    connection.send(rollback)
                }
                core.writers.giveBack(connection, level: 0)
                failed(batch, plan, failure)
            }
        }
        request.deadline = MonotonicTime.nanoseconds() + PostgreSQLCore.requestLimit
        connection.send(request)
    }

    // MARK: - Outcomes

    private func succeeded(_ batch: Batch, _ plan: Plan, _ results: [PostgreSQLResult]) {
        var rows = [[[[SQLValue]]]](repeating: [], count: batch.pending.count)
        for (index, owner) in plan.owners.enumerated() {
            guard let owner, batch.pending[owner.write].write.steps[owner.step].returnsRows else { continue }
            if let sets = plan.commands[index].batch?.sets {
                rows[owner.write] += results[index].rows(ofSets: sets.count)
            } else {
                rows[owner.write].append(results[index].rows)
            }
        }
        guard batch.takesPositions else {
            for (pending, rows) in zip(batch.pending, rows) {
                pending.answer(.success(WriteResult(firstPosition: 0, rows: rows)))
            }
            return
        }
        let last = results[1].row(0).integer(0)
        let first = last - plan.positions + 1
        let answers = batch.pending.indices.map { index in
            (batch.pending[index].answer, WriteResult(firstPosition: first + plan.offsets[index], rows: rows[index]))
        }
        core.feed.committed(first: first, last: last, plan.topics) {
            for (answer, result) in answers { answer(.success(result)) }
        }
    }

    private func failed(_ batch: Batch, _ plan: Plan, _ failure: PostgreSQLFailure) {
        if failure.command == nil || failure.state.hasPrefix("57P") {
            // What became of it is not known.
            core.feed.lostTransaction()
            core.logger.warning("a transaction was cut off", metadata: ["reason": "\(failure.message)"])
        }
        if failure.isCollision {
            return collided(batch, failure)
        }
        guard let command = failure.command, let owner = plan.owners[command], Self.isOwnFault(failure) else {
            if failure.command != nil {
                core.logger.error(
                    "writing to the database failed",
                    metadata: ["reason": "\(failure.message)", "sqlstate": "\(failure.state)"])
            }
            let error: DatabaseError = failure.state == "57014" ? .unavailable(failure.message) : failure.error
            for pending in batch.pending { pending.answer(.failure(error)) }
            return
        }
        let culprit = batch.pending[owner.write]
        let step = culprit.write.steps[owner.step]
        culprit.answer(
            .failure(
                failure.state == PostgreSQLFailure.expectation
                    ? DatabaseError.conflict(step.expectation) : failure.error))
        // Those before it were carried out without a fault, those behind it not at all: they are tried again apart, so that
        // many faulty writes cost no more than the whole batch twice.
        for part in [batch.pending[..<owner.write], batch.pending[(owner.write + 1)...]] where !part.isEmpty {
            again.append(Batch(pending: Array(part), takesPositions: batch.takesPositions))
        }
    }

    /// What is nobody's fault: connections, the state of the session, collisions, a lack of resources, locks, the operator, the system.
    private static let faultsOfNobody: Set<String> = [
        "", "08", "25", "26", "28", "3D", "40", "53", "55", "57", "58", "F0", "XX",
    ]

    /// Whether the write itself is to blame, so that others can still be carried out: what it wants contradicts the data, is too
    /// large for the server, or is not valid SQL.
    private static func isOwnFault(_ failure: PostgreSQLFailure) -> Bool {
        !faultsOfNobody.contains(String(failure.state.prefix(2)))
    }

    /// Two transactions stood in each other's way: halves of it have better chances.
    private func collided(_ batch: Batch, _ failure: PostgreSQLFailure) {
        var batch = batch
        for index in batch.pending.indices { batch.pending[index].attempts += 1 }
        let hopeless = batch.pending.filter { $0.attempts >= Self.attempts }
        for pending in hopeless { pending.answer(.failure(failure.error)) }
        batch.pending.removeAll { $0.attempts >= Self.attempts }
        let middle = (batch.pending.count + 1) / 2
        for part in [batch.pending[..<middle], batch.pending[middle...]] where !part.isEmpty {
            again.append(Batch(pending: Array(part), takesPositions: batch.takesPositions))
        }
    }
}
