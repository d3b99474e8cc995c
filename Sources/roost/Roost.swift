import ArgumentParser
import Glibc
import Homeserver
import HomeserverHTTP

@main
struct Roost: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "roost", abstract: "A Matrix homeserver.",
        subcommands: [
            ServeCommand.self, UserCommand.self, TokenCommand.self, ConfigCommand.self, DatabaseCommand.self,
            BackupCommand.self, RestoreCommand.self, KeysCommand.self, MediaCommand.self, VersionCommand.self,
        ])

    static func main() async {
        // Whatever this makes is its own: keys, database, uploads, backups.
        umask(0o077)
        do {
            var command = try parseAsRoot()
            if var asynchronous = command as? any AsyncParsableCommand {
                try await asynchronous.run()
            } else {
                try command.run()
            }
        } catch let failure as Failure {
            Terminal.complain("roost: \(failure.message)")
            Glibc.exit(failure.status)
        } catch let error as MatrixError {
            Terminal.complain("roost: \(error.message)")
            Glibc.exit(1)
        } catch {
            Self.exit(withError: error)
        }
    }
}

/// `roost version`.
struct VersionCommand: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "version", abstract: "Print the version.")

    func run() { Terminal.say("\(Version.name) \(Version.number)") }
}
