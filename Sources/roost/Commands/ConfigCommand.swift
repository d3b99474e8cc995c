import ArgumentParser
import Homeserver

/// `roost config check|example`.
struct ConfigCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "config", abstract: "Check the configuration, or print an example of it.",
        subcommands: [Check.self, Example.self])

    struct Check: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Say whether the configuration is right.")

        @OptionGroup var options: ConfigurationOptions

        @Argument(help: "The configuration file, if not given by --config.")
        var file: String?

        func run() throws {
            var options = options
            options.config = file ?? options.config
            let configuration = try options.load()
            Terminal.say("The configuration of \(configuration.serverName) is right.")
        }
    }

    struct Example: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Print a configuration with all keys and their defaults.")

        @Flag(help: "As a table in Markdown.")
        var table = false

        func run() { Terminal.write(table ? ExampleConfiguration.table : ExampleConfiguration.text, to: 1) }
    }
}
