import CPostgreSQL

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// One connection to the server, in pipeline mode. Opened by the connector's thread, then used by the loop's alone.
final class PostgreSQLConnection: @unchecked Sendable {
    /// What a connection is for, which decides how long the server lets it hold what it holds.
    enum Purpose: Sendable { case reading, writing, listening }

    let purpose: Purpose
    let socket: Int32
    private let handle: OpaquePointer
    /// Names of prepared statements.
    private var prepared: Set<PostgreSQLCommand.Form> = []
    private var names: [PostgreSQLCommand.Form: String] = [:]

    private enum Awaited {
        case preparation(PostgreSQLCommand.Form)
        case command(Int)
        case end
    }

    /// What the server will answer, in order, and whose it is.
    private var awaited: [(request: PostgreSQLRequest, part: Awaited)] = []
    private var firstAwaited = 0
    private(set) var wantsToWrite = false
    private(set) var isUnflushed = false
    /// Why it can't be used any more.
    private(set) var brokenBecause: String?
    /// Called for each notification.
    var onNotification: ((String) -> Void)?

    var isBroken: Bool { brokenBecause != nil }
    var isIdle: Bool { firstAwaited == awaited.count }
    /// What the server has not answered yet.
    var backlog: Int { awaited.count - firstAwaited }
    /// When the oldest request must have been answered.
    var deadline: UInt64 { isIdle ? .max : awaited[firstAwaited].request.deadline }

    // MARK: - Opening

    /// Connects and waits for it: for a thread that may block.
    init(url: String, purpose: Purpose, lockMilliseconds: Int = 0) throws(DatabaseError) {
        self.purpose = purpose
        // The server notices a node that is gone, and the node a server that is gone, within half a minute.
        let settings: [(String, String)] = [
            ("dbname", url), ("fallback_application_name", "roost"), ("connect_timeout", "5"),
            ("keepalives_idle", "10"), ("keepalives_interval", "5"), ("keepalives_count", "3"),
            ("tcp_user_timeout", "15000"), ("client_encoding", "UTF8"),
        ]
        let keys = settings.map { strdup($0.0) } + [nil], values = settings.map { strdup($0.1) } + [nil]
        defer { for text in keys + values { free(text) } }
        let opened = PQconnectdbParams(keys.map { UnsafePointer($0) }, values.map { UnsafePointer($0) }, 1)
        guard let opened else { throw .unavailable("out of memory") }
        guard PQstatus(opened) == CONNECTION_OK else {
            let message = PostgreSQLSecret(url: url).hidden(in: Self.message(opened))
            PQfinish(opened)
            throw .unavailable(message)
        }
        handle = opened
        socket = PQsocket(opened)
        // Notices would go to stderr.
        PQsetNoticeProcessor(opened, { _, _ in }, nil)
        for (name, value) in Self.session(purpose, lockMilliseconds) {
            try execute("SELECT set_config('\(name)', '\(value)', false)")
        }
    }

    /// Milliseconds.
    static let statementLimit = 30_000

    private static func session(_ purpose: Purpose, _ lockMilliseconds: Int) -> [(String, String)] {
        var settings = [
            ("synchronous_commit", "on"), ("statement_timeout", "\(statementLimit)"),
            ("tcp_keepalives_idle", "10"), ("tcp_keepalives_interval", "5"), ("tcp_keepalives_count", "3"),
            // Each statement is made for an index and planned once, maybe while its tables are small: a plan that reads all of one would
            // be kept while it grows.
            ("plan_cache_mode", "force_generic_plan"), ("enable_seqscan", "off"), ("enable_hashjoin", "off"),
            ("enable_mergejoin", "off"), ("jit", "off"),
        ]
        switch purpose {
        case .reading: settings.append(("idle_in_transaction_session_timeout", "60000"))
        case .writing:
            // A writing transaction goes out in one flush: one that waits for more has lost its node.
            settings.append(("idle_in_transaction_session_timeout", "5000"))
            settings.append(("lock_timeout", "\(lockMilliseconds)"))
            // For statements that are a transaction by themselves.
            settings.append(("default_transaction_isolation", "read committed"))
            settings.append(("default_transaction_read_only", "off"))
        case .listening: break
        }
        return settings
    }

    deinit { PQfinish(handle) }

    private static func message(_ handle: OpaquePointer) -> String {
        var text = String(cString: PQerrorMessage(handle))
        while text.last?.isWhitespace == true || text.last == "." { text.removeLast() }
        return text.split(separator: "\n").joined(separator: "; ")
    }

    /// Runs a statement and waits for it: before ``startPipeline()`` only.
    @discardableResult
    func execute(_ sql: String) throws(DatabaseError) -> [[SQLValue]] {
        guard let result = PQexecParams(handle, sql, 0, nil, nil, nil, nil, 1) else {
            throw .unavailable(Self.message(handle))
        }
        let owned = PostgreSQLResult(result)
        switch PQresultStatus(result) {
        case PGRES_TUPLES_OK, PGRES_COMMAND_OK: return owned.rows
        default: throw Self.failure(of: result, command: 0).error
        }
    }

    /// Runs many statements without results, one text, and waits for them: before ``startPipeline()`` only.
    func script(_ sql: String) throws(DatabaseError) {
        guard let result = PQexec(handle, sql) else { throw .unavailable(Self.message(handle)) }
        defer { PQclear(result) }
        switch PQresultStatus(result) {
        case PGRES_TUPLES_OK, PGRES_COMMAND_OK: return
        default: throw Self.failure(of: result, command: 0).error
        }
    }

    /// Runs a query with values and waits for it: before ``startPipeline()`` only.
    func query(_ statement: Statement, _ values: [SQLValue]) throws(DatabaseError) -> PostgreSQLResult {
        let parameters = PostgreSQLParameters(PostgreSQLCommand(statement, values))
        let result = parameters.with { types, pointers, lengths, formats in
            PQexecParams(handle, statement.sql, Int32(values.count), types, pointers, lengths, formats, 1)
        }
        guard let result else { throw .unavailable(Self.message(handle)) }
        let owned = PostgreSQLResult(result)
        switch PQresultStatus(result) {
        case PGRES_TUPLES_OK, PGRES_COMMAND_OK: return owned
        default: throw Self.failure(of: result, command: 0).error
        }
    }

    func startPipeline() throws(DatabaseError) {
        guard PQsetnonblocking(handle, 1) == 0, PQenterPipelineMode(handle) == 1 else {
            throw .unavailable(Self.message(handle))
        }
    }

    // MARK: - Sending

    /// Sends the commands of a request, and a mark behind which an error of theirs has no effect. They go out at the end of the loop's
    /// round, together with what else is sent in it.
    func send(_ request: PostgreSQLRequest) {
        // It may have broken since it was borrowed.
        if let reason = brokenBecause { return Self.fail(request, reason) }
        for (index, command) in request.commands.enumerated() {
            let form = command.form
            let name = names[form] ?? form.name
            let parameters = PostgreSQLParameters(command)
            if !prepared.contains(form) {
                let sent = parameters.with { types, _, _, _ in
                    PQsendPrepare(handle, name, command.sql, Int32(parameters.count), types)
                }
                guard sent == 1 else { return breakOff(Self.message(handle), request) }
                prepared.insert(form)
                names[form] = name
                awaited.append((request, .preparation(form)))
            }
            let sent = parameters.with { _, pointers, lengths, formats in
                PQsendQueryPrepared(handle, name, Int32(parameters.count), pointers, lengths, formats, 1)
            }
            guard sent == 1 else { return breakOff(Self.message(handle), request) }
            awaited.append((request, .command(index)))
        }
        guard PQpipelineSync(handle) == 1 else { return breakOff(Self.message(handle), request) }
        awaited.append((request, .end))
        isUnflushed = true
    }

    private func breakOff(_ reason: String, _ request: PostgreSQLRequest) {
        awaited.append((request, .end))
        fail(reason)
    }

    func flush() {
        isUnflushed = false
        switch PQflush(handle) {
        case 0: wantsToWrite = false
        case 1: wantsToWrite = true
        default: fail(Self.message(handle))
        }
    }

    // MARK: - Receiving

    /// Reads what has arrived, and finishes the requests that are answered.
    func receive() {
        if isBroken { return }
        let isReadable = PQconsumeInput(handle) == 1
        takeResults()
        while let notification = PQnotifies(handle) {
            onNotification?(String(cString: notification.pointee.extra))
            PQfreemem(notification)
        }
        if !isReadable || PQstatus(handle) != CONNECTION_OK { fail(Self.message(handle)) }
        if wantsToWrite, !isBroken { flush() }
    }

    private func takeResults() {
        while !isIdle, PQisBusy(handle) == 0 {
            let (request, part) = awaited[firstAwaited]
            guard let result = PQgetResult(handle) else {
                // The end of one command's results, except where the connection has ended.
                if PQstatus(handle) != CONNECTION_OK { return }
                if case .end = part { continue }
                advance()
                continue
            }
            switch PQresultStatus(result) {
            case PGRES_PIPELINE_SYNC:
                PQclear(result)
                advance()
                request.finish()
            case PGRES_TUPLES_OK, PGRES_COMMAND_OK:
                let owned = PostgreSQLResult(result)
                if case .command = part { request.add(owned) }
            default:
                switch part {
                case .preparation(let form):
                    prepared.remove(form)
                    var index = 0
                    if firstAwaited + 1 < awaited.count, case .command(let next) = awaited[firstAwaited + 1].part {
                        index = next
                    }
                    if PQresultStatus(result) != PGRES_PIPELINE_ABORTED {
                        request.note(Self.failure(of: result, command: index))
                    }
                case .command(let index):
                    if PQresultStatus(result) != PGRES_PIPELINE_ABORTED {
                        request.note(Self.failure(of: result, command: index))
                    }
                case .end: request.note(Self.failure(of: result, command: max(request.commands.count - 1, 0)))
                }
                PQclear(result)
            }
        }
    }

    private func advance() {
        firstAwaited += 1
        if firstAwaited == awaited.count || firstAwaited > 4_096 {
            awaited.removeFirst(firstAwaited)
            firstAwaited = 0
        }
    }

    private static func failure(of result: OpaquePointer, command: Int) -> PostgreSQLFailure {
        func field(_ code: Character) -> String {
            PQresultErrorField(result, Int32(code.asciiValue!)).map { String(cString: $0) } ?? ""
        }
        // PG_DIAG_SQLSTATE and PG_DIAG_MESSAGE_PRIMARY
        let state = field("C"), message = field("M")
        return PostgreSQLFailure(
            command: command, state: state, message: message.isEmpty ? "the connection was lost" : message)
    }

    /// Gives the connection up; what was asked on it has failed, or its outcome is unknown.
    func fail(_ reason: String) {
        guard brokenBecause == nil else { return }
        brokenBecause = reason.isEmpty ? "the connection was lost" : reason
        let left = awaited[firstAwaited...].map(\.request)
        awaited = []
        firstAwaited = 0
        for request in left { Self.fail(request, brokenBecause!) }
    }

    private static func fail(_ request: PostgreSQLRequest, _ reason: String) {
        request.note(PostgreSQLFailure(command: nil, state: "", message: reason))
        request.finish()
    }
}

/// The values of a command in binary form.
struct PostgreSQLParameters {
    private var buffer: [UInt8] = []
    /// Where each value begins; nil for NULL.
    private var starts: [Int?] = []
    private var lengths: [Int32] = []
    private var types: [UInt32] = []

    var count: Int { starts.count }

    init(_ command: PostgreSQLCommand) {
        if let batch = command.batch {
            for column in batch.sets[0].indices {
                append(
                    batch.sets.lazy.map { $0[column] }, command,
                    isBytes: batch.form.bytes & (1 << UInt64(column)) != 0)
            }
        } else {
            for value in command.values {
                let start = buffer.count
                let type = encode(value, command)
                note(from: type == nil ? nil : start, type ?? 0)
            }
        }
        if let expected = command.expectedChanges {
            let start = buffer.count
            write(Int64(expected))
            note(from: start, PostgreSQLType.bigint)
        }
    }

    /// Notes the value that has been written from a place on; nil: NULL.
    private mutating func note(from start: Int?, _ type: UInt32) {
        starts.append(start)
        lengths.append(Int32(start.map { buffer.count - $0 } ?? 0))
        types.append(type)
    }

    /// Writes a value.
    ///
    /// - Returns: its type; nil for NULL, of which nothing is written.
    private mutating func encode(_ value: SQLValue, _ command: PostgreSQLCommand) -> UInt32? {
        switch value {
        case .null: return nil
        case .integer(let number): write(number)
        case .position(let offset): write(Int64(offset) + command.positionOffset)
        case .text(let text):
            buffer.append(contentsOf: text.utf8)
            return PostgreSQLType.bytea
        case .blob(let bytes):
            buffer.append(contentsOf: bytes)
            return PostgreSQLType.bytea
        }
        return PostgreSQLType.bigint
    }

    private mutating func write(_ number: some FixedWidthInteger) {
        withUnsafeBytes(of: number.bigEndian) { buffer.append(contentsOf: $0) }
    }

    /// An array of one dimension: how many dimensions, whether there may be NULLs, the type of the elements, how many they are and
    /// the first one's number; then for each its length (-1: NULL) and its bytes.
    private mutating func append(
        _ values: some Collection<SQLValue>, _ command: PostgreSQLCommand, isBytes: Bool
    ) {
        let start = buffer.count
        write(Int32(1))
        write(Int32(1))
        write(isBytes ? PostgreSQLType.bytea : PostgreSQLType.bigint)
        write(Int32(values.count))
        write(Int32(1))
        for value in values {
            let place = buffer.count
            write(Int32(-1))
            guard encode(value, command) != nil else { continue }
            withUnsafeBytes(of: Int32(buffer.count - place - 4).bigEndian) { length in
                for (index, byte) in length.enumerated() { buffer[place + index] = byte }
            }
        }
        note(from: start, isBytes ? PostgreSQLType.byteaArray : PostgreSQLType.bigintArray)
    }

    func with<T>(
        _ body: (
            UnsafePointer<UInt32>, UnsafePointer<UnsafePointer<CChar>?>, UnsafePointer<Int32>, UnsafePointer<Int32>
        ) -> T
    ) -> T {
        let formats = [Int32](repeating: 1, count: count + 1)
        // One byte more, so that there is an address even for values of no length.
        return (buffer + [0]).withUnsafeBytes { bytes in
            let base = bytes.baseAddress!.assumingMemoryBound(to: CChar.self)
            let pointers = starts.map { $0.map { base + $0 } } + [nil]
            return body(types + [0], pointers, lengths + [0], formats)
        }
    }
}
