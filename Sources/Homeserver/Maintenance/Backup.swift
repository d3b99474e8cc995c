import Database
import Logging
import MatrixCore

/// Backups: database, media and keys as one set in a directory.
///
/// The database is always written as an SQLite file, whatever the server's engine: a backup opens everywhere, and a server can be
/// moved from one engine to the other by it. The signing key is in the database. Media are files that never change, named
/// by their content; those that the copied database knows are copied after it, so none that it names is missing but those that were before.
public struct Backup: Sendable {
    static let databaseName = "roost.db"
    static let manifestName = "backup.json"

    /// What was backed up or restored.
    public struct Summary: Sendable {
        public let serverName: String
        public let rooms: Int
        public let events: Int
        public let mediaFiles: Int
        /// Media that the database names and that are not there.
        public let missingMedia: Int
    }

    /// Why a backup can't be made or used, for the person who asked for it.
    public struct Problem: Error, CustomStringConvertible {
        public let description: String
    }

    /// Makes a backup while the server runs, and verifies it by opening it.
    ///
    /// - Parameter directory: a new or an empty one.
    public static func make(
        of database: Database, serverName: ServerName, mediaPath: String, into directory: String, now: Int64,
        logger: Logger
    ) async throws -> Summary {
        try Files.makeDirectories(directory)
        guard Files.names(in: directory).isEmpty else {
            throw Problem(description: "\(directory) is not empty; a backup needs a directory of its own.")
        }
        let file = "\(directory)/\(databaseName)"
        try await database.engine.copy(to: file)
        let copy = try await open(file, logger)
        let report: ConsistencyCheck.Report
        let hashes: [[UInt8]]
        do {
            report = try await ConsistencyCheck(copy).run()
            hashes = try await copy.mediaHashes()
            await copy.close()
        } catch {
            await copy.close()
            throw error
        }
        guard report.isClean else { throw Self.unclean("backup", report) }
        try checkIsAlone(file)
        let missing = try copyMedia(hashes, from: mediaPath, to: "\(directory)/media")
        if missing > 0 {
            logger.warning("media files are missing and not in the backup", metadata: ["count": "\(missing)"])
        }
        let summary = Summary(
            serverName: serverName.string, rooms: report.rooms, events: report.events,
            mediaFiles: hashes.count - missing, missingMedia: missing)
        // Written last: a directory without it is no backup.
        let manifest: JSON = [
            "format": 1, "server_name": .string(serverName.string), "created_ts": .integer(now),
            "rooms": .integer(Int64(report.rooms)), "events": .integer(Int64(report.events)),
            "media_files": .integer(Int64(summary.mediaFiles)),
        ]
        try Files.write(manifest.encoded(), to: "\(directory)/\(manifestName)")
        return summary
    }

    private static func unclean(_ what: String, _ report: ConsistencyCheck.Report) -> Problem {
        Problem(
            description: "The \(what) contradicts itself in \(report.count) places, such as: "
                + report.problems.prefix(3).joined(separator: "; ") + ".")
    }

    /// Opens a copy that nobody else uses. It may be read as slowly as it has to be: a backup that was verified on a fast machine can be
    /// restored on a slow one.
    private static func open(_ path: String, _ logger: Logger) async throws -> Database {
        var options = SQLiteEngine.Options()
        options.readLimitNanoseconds = nil
        return Database(
            engine: try await SQLiteEngine(path: path, options: options, logger: logger), cacheBytes: 8 << 20)
    }

    /// The names that SQLite gives to what it keeps beside a database. It takes them for part of whatever lies there under its name.
    private static func companions(of path: String) -> [String] { ["-wal", "-shm", "-journal"].map { path + $0 } }

    /// A database that was closed is in its file alone; a log that is left holds what could not be written there.
    private static func checkIsAlone(_ path: String) throws {
        for log in ["\(path)-wal", "\(path)-journal"] where Files.hasContent(log) {
            throw Problem(description: "\(path) could not be written to its end, \(log) is left; is the disk full?")
        }
    }

    /// - Returns: how many are not there.
    private static func copyMedia(_ hashes: [[UInt8]], from source: String, to target: String) throws -> Int {
        let (from, to) = (try BlobStore(directory: source), try BlobStore(directory: target))
        var missing = 0
        var folders: Set<String> = []
        for hash in hashes where !to.contains(hash) {
            if try to.take(hash, from: from) {
                folders.insert(Files.parent(of: to.path(of: hash)))
            } else {
                missing += 1
            }
        }
        for folder in folders.sorted() + [target] { try Files.syncDirectory(folder) }
        return missing
    }

    /// Fills the empty place of a server with a backup. The restored database has a new epoch: what clients and other servers
    /// knew of the time after the backup means nothing any more, and they begin anew.
    ///
    /// - Parameters:
    ///   - location: of the database to be; nothing may be there. It may be of another engine than the one that was backed up.
    ///   - scratch: a directory for what is needed meanwhile.
    public static func restore(
        from directory: String, serverName: ServerName, to location: Configuration.DatabaseLocation, mediaPath: String,
        scratch: String, surroundings: Surroundings, logger: Logger
    ) async throws -> Summary {
        try checkManifest(directory, serverName)
        let partial: String
        switch location {
        case .sqlite(let path):
            guard !Files.exists(path) else {
                throw Problem(
                    description:
                        "There is a database at \(path) already; move it away before you restore another one, with "
                        + "what lies beside it under its name.")
            }
            if let left = companions(of: path).first(where: Files.exists) {
                throw Problem(
                    description:
                        "\(left) is left of a database that was at \(path), and would be taken for part of the "
                        + "restored one; move it to where that database is now.")
            }
            partial = "\(path).partial"
        case .postgresql: partial = "\(scratch)/restore.partial"
        }
        try Files.makeDirectories(Files.parent(of: partial))
        for leftover in [partial] + companions(of: partial) { Files.remove(leftover) }
        try checkIsAlone("\(directory)/\(databaseName)")
        try Files.copy("\(directory)/\(databaseName)", to: partial)
        let database = try await open(partial, logger)
        let summary: Summary
        do {
            try await database.beginEpoch(ServerIdentity.newEpoch(surroundings), at: surroundings.now())
            let report = try await ConsistencyCheck(database).run()
            guard report.isClean else { throw unclean("backup", report) }
            let hashes = try await database.mediaHashes()
            let missing = try copyMedia(hashes, from: "\(directory)/media", to: mediaPath)
            summary = Summary(
                serverName: serverName.string, rooms: report.rooms, events: report.events,
                mediaFiles: hashes.count - missing, missingMedia: missing)
            await database.close()
        } catch {
            await database.close()
            throw error
        }
        try checkIsAlone(partial)
        // It takes its place whole, or not at all.
        switch location {
        case .sqlite(let path): try Files.move(partial, to: path)
        case .postgresql(let url):
            defer { Files.remove(partial) }
            try await PostgreSQLEngine.fill(url: url, from: partial)
        }
        return summary
    }

    private static func checkManifest(_ directory: String, _ serverName: ServerName) throws {
        guard let bytes = Files.read("\(directory)/\(manifestName)"), let manifest = try? JSONDocument(parsing: bytes)
        else {
            throw Problem(description: "\(directory) is not a whole backup: it has no readable \(manifestName).")
        }
        guard manifest.root["format"]?.integer == 1 else {
            throw Problem(
                description: "The backup in \(directory) was made by a newer Roost; restore it with that version.")
        }
        guard let name = manifest.root["server_name"]?.string, name.hasSameBytes(as: serverName.string) else {
            throw Problem(
                description: "The backup is of the server “\(manifest.root["server_name"]?.string ?? "?")”, not of "
                    + "“\(serverName)”; set server_name to it.")
        }
    }
}
