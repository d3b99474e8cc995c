import ArgumentParser
import Homeserver

/// Where a command finds the configuration.
struct ConfigurationOptions: ParsableArguments {
    @Option(help: "The configuration file. Without one everything lies under the data directory.")
    var config: String?

    @Option(help: "The directory of the data (default: ./data, or data beside the configuration file).")
    var data: String?

    /// The file of `--config`, or of the variable `ROOST_CONFIG`.
    func file(_ environment: [String: String]) -> String? { config ?? environment["ROOST_CONFIG"] }

    /// - Throws: ``Failure`` with one line for each wrong setting, and exit status 78.
    func load(_ settings: CommandLineSettings = CommandLineSettings()) throws(Failure) -> Configuration {
        var settings = settings
        settings.data = data
        let environment = ProcessEnvironment.variables()
        do {
            return try ConfigurationLoader.load(
                file: file(environment), environment: environment, options: settings)
        } catch {
            throw Failure(
                error.problems.map(\.description).joined(separator: "\nroost: "),
                status: Failure.configurationStatus)
        }
    }

    /// How these options are repeated in a command that a person is told to run.
    var repeated: String {
        (config.map { " --config \($0)" } ?? "") + (data.map { " --data \($0)" } ?? "")
    }
}
