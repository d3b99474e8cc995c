import ArgumentParser
import MatrixCore

/// `roost media`.
struct MediaCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "media", abstract: "Look after files.", subcommands: [Purge.self])

    struct Purge: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: """
                Remove files of other servers and free their space; who wants one again has it fetched again. Works while the \
                server runs and while it doesn't.
                """)

        @Option(
            name: .customLong("older-than"),
            help: "Only files that were fetched longer ago, such as 30d; those of the last hour always stay.")
        var olderThan: String = "1h"
        @OptionGroup var options: ConfigurationOptions

        func run() async throws {
            let seconds = try TimeSpan.seconds(olderThan, of: "--older-than")
            let time = (Int64(LogLine.now().tv_sec) - Int64(seconds)) * 1000
            let answer = try await AdminConnection(configuration: try options.load())
                .send(.POST, "/media/purge", ["fetched_before": .integer(time)])
            let (files, bytes) = (answer.root["files"]?.integer ?? 0, answer.root["bytes"]?.integer ?? 0)
            Terminal.say("Removed \(files) files of other servers, \(bytes) bytes.")
        }
    }
}
