import CSQLite
import CSQLiteLog

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// One connection to an SQLite file. It may be used by one thread at a time; its owner sees to that.
final class SQLiteConnection: @unchecked Sendable {
    private let handle: OpaquePointer
    /// Prepared statements by the number of their ``Statement``.
    private var prepared: [OpaquePointer?] = []
    /// When the read under way must end, in nanoseconds of the monotonic clock; 0: no limit.
    fileprivate var deadline: UInt64 = 0

    enum Mode {
        case readWrite, readOnly
        /// What a commit writes into the log goes there in one call. For connections that sync the log with each commit.
        case gathering
    }

    /// SQLITE_TRANSIENT: SQLite copies what is bound.
    private static let transient = unsafeBitCast(-1, to: sqlite3_destructor_type.self)
    private static let untouched = unsafeBitCast(0, to: sqlite3_destructor_type.self)

    init(path: String, mode: Mode) throws(DatabaseError) {
        var opened: OpaquePointer?
        let flags =
            mode == .readOnly
            ? SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX
            : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX
        let code = sqlite3_open_v2(path, &opened, flags, mode == .gathering ? roost_gathering_vfs() : nil)
        guard code == SQLITE_OK, let opened else {
            let message = opened.map { String(cString: sqlite3_errmsg($0)) } ?? "out of memory"
            sqlite3_close_v2(opened)
            throw .unusable("The database file \(path) can't be opened: \(message).")
        }
        handle = opened
        sqlite3_extended_result_codes(handle, 1)
        sqlite3_busy_timeout(handle, 10_000)
        if mode == .readOnly {
            try execute("PRAGMA query_only = 1")
            sqlite3_progress_handler(
                handle, 20_000,
                { context in
                    let connection = Unmanaged<SQLiteConnection>.fromOpaque(context!).takeUnretainedValue()
                    return connection.deadline != 0 && MonotonicTime.nanoseconds() > connection.deadline ? 1 : 0
                }, Unmanaged.passUnretained(self).toOpaque())
        }
    }

    deinit {
        for statement in prepared { sqlite3_finalize(statement) }
        sqlite3_close_v2(handle)
    }

    /// Reads may take this long from now on; nil: as long as they want.
    func limitReads(nanoseconds: UInt64?) {
        deadline = nanoseconds.map { MonotonicTime.nanoseconds() + $0 } ?? 0
    }

    /// Runs statements without parameters.
    func execute(_ sql: String) throws(DatabaseError) {
        let code = sqlite3_exec(handle, sql, nil, nil, nil)
        if code != SQLITE_OK { throw error(code) }
    }

    var changes: Int { Int(sqlite3_changes(handle)) }

    /// Runs a prepared statement and hands each of its rows to the closure.
    func run(
        _ statement: Statement, _ values: [SQLValue], firstPosition: Int64 = 0,
        _ body: (SQLiteRow) throws -> Void = { _ in }
    ) throws {
        let compiled = try compile(statement)
        defer {
            sqlite3_reset(compiled)
        }
        for (index, value) in values.enumerated() {
            let place = Int32(index + 1)
            let code =
                switch value {
                case .null: sqlite3_bind_null(compiled, place)
                case .integer(let number): sqlite3_bind_int64(compiled, place, number)
                case .position(let offset): sqlite3_bind_int64(compiled, place, firstPosition + Int64(offset))
                case .text(var text):
                    text.withUTF8 {
                        sqlite3_bind_text(
                            compiled, place,
                            UnsafeRawPointer($0.baseAddress)?.assumingMemoryBound(to: CChar.self) ?? Self.empty,
                            Int32($0.count), Self.transient)
                    }
                case .blob(let bytes):
                    bytes.withUnsafeBytes {
                        $0.isEmpty
                            ? sqlite3_bind_zeroblob(compiled, place, 0)
                            : sqlite3_bind_blob(compiled, place, $0.baseAddress, Int32($0.count), Self.transient)
                    }
                }
            if code != SQLITE_OK { throw error(code) }
        }
        while true {
            switch sqlite3_step(compiled) {
            case SQLITE_ROW: try body(SQLiteRow(statement: compiled))
            case SQLITE_DONE: return
            case let code: throw error(code)
            }
        }
    }

    /// An address for text of no length, since a null pointer would mean NULL.
    nonisolated(unsafe) private static let empty = UnsafePointer(strdup("")!)

    private func compile(_ statement: Statement) throws(DatabaseError) -> OpaquePointer {
        if statement.number < prepared.count, let ready = prepared[statement.number] { return ready }
        var compiled: OpaquePointer?
        // `$1` would be a named parameter to SQLite, numbered by its first use; `?1` is the number itself.
        let sql = String(
            decoding: statement.sql.utf8.map { $0 == UInt8(ascii: "$") ? UInt8(ascii: "?") : $0 }, as: UTF8.self)
        let code = sqlite3_prepare_v3(handle, sql, -1, UInt32(SQLITE_PREPARE_PERSISTENT), &compiled, nil)
        guard code == SQLITE_OK, let compiled else {
            throw .engine(code: code, message: "\(String(cString: sqlite3_errmsg(handle))) in: \(sql)")
        }
        while prepared.count <= statement.number { prepared.append(nil) }
        prepared[statement.number] = compiled
        return compiled
    }

    private func error(_ code: Int32) -> DatabaseError {
        let message = String(cString: sqlite3_errmsg(handle))
        switch code & 0xff {
        case SQLITE_CONSTRAINT: return .constraint(message)
        case SQLITE_INTERRUPT: return .interrupted
        case SQLITE_CORRUPT, SQLITE_NOTADB: return .corrupt(message)
        default: return .engine(code: code, message: message)
        }
    }

    /// Copies what the write-ahead log holds into the database file, as far as readers allow. Does nothing while another connection
    /// does the same.
    ///
    /// - Returns: the pages in the log, and how many of them have been copied; nil if another one is at it.
    /// - Throws: ``DatabaseError`` if it can't be copied, also because the connection doesn't know of a log.
    func checkpoint() throws(DatabaseError) -> (logged: Int, copied: Int)? {
        var logged: Int32 = 0
        var copied: Int32 = 0
        let code = sqlite3_wal_checkpoint_v2(handle, nil, SQLITE_CHECKPOINT_PASSIVE, &logged, &copied)
        if code & 0xff == SQLITE_BUSY { return nil }
        if code != SQLITE_OK { throw error(code) }
        if logged < 0 { throw .engine(code: code, message: "the connection knows of no log") }
        return (Int(logged), Int(copied))
    }

    /// Copies all of the log into the file and empties it, as far as other connections allow.
    func checkpointAndTruncate() { sqlite3_wal_checkpoint_v2(handle, nil, SQLITE_CHECKPOINT_TRUNCATE, nil, nil) }

    /// Calls the closure after each commit with the number of pages in the write-ahead log.
    func onCommit(
        _ context: UnsafeMutableRawPointer,
        _ hook: @convention(c) (UnsafeMutableRawPointer?, OpaquePointer?, UnsafePointer<CChar>?, Int32) -> Int32
    ) {
        sqlite3_wal_hook(handle, hook, context)
    }
}

/// The current row of a statement.
struct SQLiteRow: Row {
    let statement: OpaquePointer

    func isNull(_ column: Int) -> Bool { sqlite3_column_type(statement, Int32(column)) == SQLITE_NULL }

    func integer(_ column: Int) -> Int64 { sqlite3_column_int64(statement, Int32(column)) }

    func blob(_ column: Int) -> [UInt8] {
        guard let start = sqlite3_column_blob(statement, Int32(column)) else { return [] }
        let count = Int(sqlite3_column_bytes(statement, Int32(column)))
        return [UInt8](UnsafeRawBufferPointer(start: start, count: count))
    }

    func text(_ column: Int) -> String {
        guard let start = sqlite3_column_blob(statement, Int32(column)) else { return "" }
        let count = Int(sqlite3_column_bytes(statement, Int32(column)))
        return String(decoding: UnsafeRawBufferPointer(start: start, count: count), as: UTF8.self)
    }

    /// All columns as values.
    var values: [SQLValue] {
        (0..<Int(sqlite3_column_count(statement))).map { column in
            switch sqlite3_column_type(statement, Int32(column)) {
            case SQLITE_NULL: .null
            case SQLITE_INTEGER: .integer(integer(column))
            case SQLITE_TEXT: .text(text(column))
            default: .blob(blob(column))
            }
        }
    }
}
