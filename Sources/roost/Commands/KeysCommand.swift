import ArgumentParser

/// `roost keys`.
struct KeysCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "keys", abstract: "Look after the key that signs this server's events.", subcommands: [Rotate.self]
    )

    struct Rotate: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: """
                Sign with a new key from now on; what was signed before stays valid. Works while the server runs and while it \
                doesn't.
                """)

        @OptionGroup var options: ConfigurationOptions

        func run() async throws {
            let answer = try await AdminConnection(configuration: try options.load()).send(.POST, "/keys/rotate")
            Terminal.say("The server signs with \(answer.root["key_id"]?.string ?? "a new key") from now on.")
        }
    }
}
