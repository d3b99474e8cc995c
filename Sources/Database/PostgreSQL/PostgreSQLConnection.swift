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
            let message = Self.message(opened)
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
        ]
        switch purpose {
        case .reading: settings.append(("idle_in_transaction_session_timeout", "60000"))
        case .writing:
            // A writing transaction goes out in one flush: one that waits for more has lost its node.
            settings.append(("idle_in_transaction_session_timeout", "5000"))
            settings.append(("lock_timeout", "\(lockMilliseconds)"))
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
    func query(_ sql: String, _ values: [SQLValue]) throws(DatabaseError) -> PostgreSQLResult {
        let parameters = PostgreSQLParameters(values, command: PostgreSQLCommand(Statement(sql), values))
        let result = parameters.with { types, pointers, lengths, formats in
            PQexecParams(handle, sql, Int32(values.count), types, pointers, lengths, formats, 1)
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
        for (index, command) in request.commands.enumerated() {
            let form = command.form
            let name = names[form] ?? "s\(form.number)_\(form.expects ? 1 : 0)_\(form.positions)"
            let parameters = PostgreSQLParameters(command.values, command: command)
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
        for request in left {
            request.note(PostgreSQLFailure(command: nil, state: "", message: brokenBecause!))
            request.finish()
        }
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

    init(_ values: [SQLValue], command: PostgreSQLCommand) {
        for value in values {
            switch value {
            case .null:
                starts.append(nil)
                lengths.append(0)
                types.append(0)
            case .integer(let number): append(number)
            case .position(let offset): append(Int64(offset) + command.positionOffset)
            case .text(let text): append(text.utf8)
            case .blob(let bytes): append(bytes)
            }
        }
        if let expected = command.expectedChanges { append(Int64(expected)) }
    }

    private mutating func append(_ number: Int64) {
        starts.append(buffer.count)
        withUnsafeBytes(of: number.bigEndian) { buffer.append(contentsOf: $0) }
        lengths.append(8)
        types.append(PostgreSQLType.bigint)
    }

    private mutating func append(_ bytes: some Collection<UInt8>) {
        starts.append(buffer.count)
        buffer.append(contentsOf: bytes)
        lengths.append(Int32(bytes.count))
        types.append(PostgreSQLType.bytea)
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
