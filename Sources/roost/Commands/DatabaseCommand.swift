import ArgumentParser
import Glibc
import Homeserver
import Logging
import MatrixCore

/// `roost db check`.
struct DatabaseCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "db", abstract: "Look after the database.", subcommands: [Check.self])

    struct Check: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Look for contradictions in the database; works while the server runs and while it doesn't.")

        @OptionGroup var options: ConfigurationOptions

        func run() async throws {
            let answer = try await AdminConnection(configuration: try options.load()).send(.POST, "/database/check")
            let (rooms, events) = (answer.root["rooms"]?.integer ?? 0, answer.root["events"]?.integer ?? 0)
            let count = answer.root["count"]?.integer ?? 0
            guard count > 0 else { return Terminal.say("All is well: \(rooms) rooms, \(events) events.") }
            for problem in answer.root["problems"].map({ Array($0.elements) }) ?? [] {
                Terminal.complain("- \(problem.string ?? "")")
            }
            throw Failure("the database contradicts itself in \(count) places; restore a backup, and report this")
        }
    }
}

/// `roost backup DIR`.
struct BackupCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "backup",
        abstract: "Write database, media and keys to a directory; works while the server runs and while it doesn't.")

    @Argument(help: "A directory that is new or empty.") var directory: String
    @OptionGroup var options: ConfigurationOptions

    func run() async throws {
        // The server may run in another directory.
        let here = getcwd(nil, 0)
        defer { free(here) }
        let path = Paths.resolve(directory, from: here.map { String(cString: $0) } ?? "")
        let answer = try await AdminConnection(configuration: try options.load())
            .send(.POST, "/database/backup", ["directory": .string(path)])
        let (rooms, events) = (answer.root["rooms"]?.integer ?? 0, answer.root["events"]?.integer ?? 0)
        Terminal.say(
            "The backup is complete and verified: \(rooms) rooms, \(events) events, "
                + "\(answer.root["media_files"]?.integer ?? 0) media files.")
        Self.tell(missing: Int(answer.root["missing_media"]?.integer ?? 0), from: "the server's media")
    }

    static func tell(missing: Int, from place: String) {
        guard missing > 0 else { return }
        Terminal.complain(
            "\(missing) files that the database names are missing from \(place); whoever asks for them gets none.")
    }
}

/// `roost restore DIR`.
struct RestoreCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "restore", abstract: "Fill an empty server with a backup. The server must not be running.")

    @Argument(help: "The directory of the backup.") var directory: String
    @OptionGroup var options: ConfigurationOptions

    func run() async throws {
        let configuration = try options.load()
        let lock = try DataDirectory(configuration.dataPath)
        let databaseLock = try ProcessLock.database(configuration.database)
        do {
            let summary = try await Backup.restore(
                from: directory, serverName: configuration.serverName, to: configuration.database,
                mediaPath: configuration.media.path, scratch: configuration.dataPath, surroundings: .real,
                logger: Logger(label: "restore"))
            Terminal.say(
                "Restored \(summary.rooms) rooms, \(summary.events) events and \(summary.mediaFiles) media files. "
                    + "Clients that were signed in when the backup was made still are.")
            BackupCommand.tell(missing: summary.missingMedia, from: "the backup")
        } catch {
            throw Failure("\(error)")
        }
        withExtendedLifetime((lock, databaseLock)) {}
    }
}
