import Glibc
import Homeserver
import HomeserverHTTP
import Logging
import Synchronization

/// The log of the server, on standard error: lines for people, or JSON for programs. Every line about a request carries
/// its ID.
enum ServerLog {
    /// Sets up logging for the whole process; called once.
    static func bootstrap(_ settings: Configuration.Log) {
        setLevel(settings.level)
        let isJSON = settings.format == .json
        let isColoured = isatty(STDERR_FILENO) == 1
        let request = Logger.MetadataProvider { RequestID.current.map { ["request": "\($0)"] } ?? [:] }
        LoggingSystem.bootstrap(
            { label, provider in
                ServerLogHandler(
                    label: label, isColoured: isColoured, isJSON: isJSON, metadataProvider: provider)
            }, metadataProvider: request)
    }

    /// Changes the level for all loggers, also those that exist already.
    static func setLevel(_ level: Configuration.Log.Level) {
        let index = Configuration.Log.Level.allCases.firstIndex(of: level) ?? 0
        current.store(index, ordering: .relaxed)
    }

    static var level: Logger.Level { Logger.Level.allCases[current.load(ordering: .relaxed)] }

    /// The place of the level in `Logger.Level.allCases`, which has the same levels in the same order as ours.
    private static let current = Atomic(2)
}

/// Formats a line and writes it with a single system call, so that lines of different threads don't mix.
struct ServerLogHandler: LogHandler {
    let label: String
    let isColoured: Bool
    let isJSON: Bool
    var metadata: Logger.Metadata = [:]
    var metadataProvider: Logger.MetadataProvider?

    var logLevel: Logger.Level {
        get { ServerLog.level }
        set {}
    }

    init(label: String, isColoured: Bool, isJSON: Bool, metadataProvider: Logger.MetadataProvider?) {
        self.label = label
        self.isColoured = isColoured
        self.isJSON = isJSON
        self.metadataProvider = metadataProvider
    }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        var all = metadata
        if let provided = metadataProvider?.get() { all.merge(provided) { _, new in new } }
        if let given = event.metadata { all.merge(given) { _, new in new } }
        let line = LogLine(
            time: LogLine.now(), level: event.level, label: label, message: "\(event.message)",
            metadata: all.sorted { $0.key < $1.key }.map { ($0.key, "\($0.value)") })
        Terminal.write(isJSON ? line.json : line.text(isColoured: isColoured), to: STDERR_FILENO)
    }
}
