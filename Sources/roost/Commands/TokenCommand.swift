import ArgumentParser
import Glibc
import MatrixCore

/// `roost token create|list|revoke`: registration tokens, for `registration.mode: token`.
struct TokenCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "token",
        abstract: "Make and look after registration tokens, with which people make their own accounts.",
        subcommands: [Create.self, List.self, Revoke.self])

    struct Create: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Make a registration token.")

        @Argument(help: "The token (default: a random one).") var token: String?
        @Option(help: "How many accounts can be made with it (default: any number).") var uses: Int64?
        @Option(name: .customLong("expires-in"), help: "How long it is valid, such as 12h or 7d (default: for ever).")
        var expiresIn: String?
        @OptionGroup var options: ConfigurationOptions

        func run() async throws {
            var body: JSON = [:]
            body["token"] = token.map { .string($0) }
            body["uses_allowed"] = uses.map { .integer($0) }
            body["expires_ts"] = try expiry().map { .integer($0) }
            let answer = try await AdminConnection(configuration: try options.load()).send(.POST, "/tokens", body)
            Terminal.say(answer.root["token"]?.string ?? "")
        }

        private func expiry() throws(Failure) -> Int64? {
            guard let expiresIn else { return nil }
            return (Int64(LogLine.now().tv_sec) + Int64(try TimeSpan.seconds(expiresIn, of: "--expires-in"))) * 1000
        }
    }

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "List the registration tokens.")

        @OptionGroup var options: ConfigurationOptions

        func run() async throws {
            let answer = try await AdminConnection(configuration: try options.load()).send(.GET, "/tokens")
            let tokens = answer.root["tokens"].map { Array($0.elements) } ?? []
            guard !tokens.isEmpty else {
                return Terminal.say("There are no registration tokens; `roost token create` makes one.")
            }
            for token in tokens {
                let used = token["completed"]?.integer ?? 0
                let uses = token["uses_allowed"]?.integer.map { "\(used) of \($0) uses" } ?? "\(used) uses"
                let seconds = token["expires_ts"]?.integer.map { $0 / 1000 - Int64(LogLine.now().tv_sec) }
                let end = seconds.map { $0 <= 0 ? ", expired" : ", \($0 / 3600) hours left" } ?? ""
                Terminal.say("\(token["token"]?.string ?? "?")  (\(uses)\(end))")
            }
        }
    }

    struct Revoke: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "End a registration token.")

        @Argument(help: "The token.") var token: String
        @OptionGroup var options: ConfigurationOptions

        func run() async throws {
            let path = "/tokens/\(AdminConnection.segment(token))"
            _ = try await AdminConnection(configuration: try options.load()).send(.DELETE, path)
            Terminal.say("\(token) is no longer valid.")
        }
    }
}
