import Logging
import Synchronization

/// Copies the write-ahead log into the database file, on a thread and a connection of its own.
final class SQLiteCheckpointer: @unchecked Sendable {
    private let pages: Int
    /// The connection whose commits make the log longer.
    private var writer: SQLiteConnection?
    private let plan: Plan
    private let thread: WorkThread<Int>

    /// What several threads see of it.
    private final class Plan: Sendable {
        /// Whether a checkpoint is asked for or under way: one at a time.
        let isAsked = Atomic<Bool>(false)
        /// Pages in the log from which on the next one is due.
        let due: Atomic<Int>

        init(due: Int) { self.due = Atomic(due) }
    }

    init(path: String, pages: Int, isDurable: Bool, logger: Logger) throws {
        self.pages = pages
        let connection = try SQLiteConnection(path: path, mode: .readWrite)
        try connection.execute("PRAGMA synchronous = \(isDurable ? "FULL" : "OFF")")
        // A connection that has read nothing doesn't know of the log, and would copy nothing.
        try connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1")
        let plan = Plan(due: pages)
        self.plan = plan
        thread = WorkThread(most: 64) { _ in
            // It never has the writer wait, as one would that begins the log anew at once: that waits for readers meanwhile, and
            // there may always be some. The writer begins it anew when everything is copied and nobody reads from it.
            do {
                if let state = try connection.checkpoint() {
                    logger.trace("checkpoint", metadata: ["logged": "\(state.logged)", "copied": "\(state.copied)"])
                    // What was copied whole is begun anew as soon as nobody reads from it any more; till then there is little to do.
                    plan.due.store(max(pages, state.copied + pages / 2), ordering: .relaxed)
                }
            } catch {
                logger.warning("the database's log can't be copied into its file", metadata: ["reason": "\(error)"])
            }
            plan.isAsked.store(false, ordering: .releasing)
        }
    }

    /// Has the connection's commits tell how long the log is.
    func watch(_ connection: SQLiteConnection) {
        writer = connection
        connection.onCommit(Unmanaged.passUnretained(self).toOpaque()) { context, _, _, logged in
            let checkpointer = Unmanaged<SQLiteCheckpointer>.fromOpaque(context!).takeUnretainedValue()
            checkpointer.logHas(pages: Int(logged))
            if logged > 4 * checkpointer.pages {
                // The thread doesn't get to it: who makes the log so long copies it.
                _ = try? checkpointer.writer?.checkpoint()
            }
            return 0
        }
    }

    private func logHas(pages logged: Int) {
        if logged < pages {
            // It was begun anew.
            plan.due.store(pages, ordering: .relaxed)
        } else if logged >= plan.due.load(ordering: .relaxed),
            !plan.isAsked.exchange(true, ordering: .acquiringAndReleasing)
        {
            _ = thread.add(logged)
        }
    }

    func close() async { await thread.close() }
}
