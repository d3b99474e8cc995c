import Logging
import Synchronization

/// Copies the write-ahead log into the database file, on a thread and a connection of its own.
final class SQLiteCheckpointer: @unchecked Sendable {
    private let pages: Int
    /// Whether a checkpoint is due or under way, so that one is asked for at a time.
    private let asked = Flag()
    private let thread: WorkThread<Int>

    init(path: String, pages: Int, logger: Logger) throws {
        self.pages = pages
        let connection = try SQLiteConnection(path: path, mode: .readWrite)
        let asked = asked
        thread = WorkThread(most: 64) { _ in
            var state = connection.checkpoint(restart: false)
            // A log that is never copied to its end is never begun anew and grows; then the writer waits for once.
            if state.logged > 2 * pages { state = connection.checkpoint(restart: true) }
            logger.trace("checkpoint", metadata: ["logged": "\(state.logged)", "copied": "\(state.copied)"])
            asked.lower()
        }
    }

    /// Has the connection's commits tell how long the log is.
    func watch(_ connection: SQLiteConnection) {
        connection.onCommit(Unmanaged.passUnretained(self).toOpaque()) { context, _, _, logged in
            let checkpointer = Unmanaged<SQLiteCheckpointer>.fromOpaque(context!).takeUnretainedValue()
            checkpointer.logHas(pages: Int(logged))
            return 0
        }
    }

    private func logHas(pages logged: Int) {
        guard logged >= pages, asked.raise() else { return }
        _ = thread.add(logged)
    }

    func close() async { await thread.close() }
}

/// A flag that several threads see.
private final class Flag: Sendable {
    private let raised = Atomic<Bool>(false)

    /// Raises the flag; false if it was up already.
    func raise() -> Bool { !raised.exchange(true, ordering: .acquiringAndReleasing) }
    func lower() { raised.store(false, ordering: .releasing) }
}
