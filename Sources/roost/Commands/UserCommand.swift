import ArgumentParser
import MatrixCore

/// `roost user create|promote|list|passwd|deactivate`.
struct UserCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "user", abstract: "Make and look after accounts.",
        subcommands: [Create.self, Promote.self, List.self, Passwd.self, Deactivate.self])

    struct Create: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Make an account.",
            discussion: "The password is asked for, or read from standard input.")

        @Argument(help: "The name before the colon, such as alice.") var name: String
        @Flag(help: "Let the account administer this server.") var admin = false
        @OptionGroup var options: ConfigurationOptions

        func run() async throws {
            let configuration = try options.load()
            let password = try PasswordPrompt.newPassword(for: name)
            let answer = try await AdminConnection(configuration: configuration).send(
                .POST, "/users", ["localpart": .string(name), "password": .string(password), "admin": .bool(admin)])
            let user = answer.root["user_id"]?.string ?? name
            Terminal.say("Made \(user)\(admin ? ", who administers this server" : "").")
            let url = answer.root["homeserver_url"]?.string ?? configuration.publicBaseURL
            Terminal.say("To sign in, enter \(url) as the homeserver in a Matrix client.")
        }
    }

    struct Promote: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Let an account administer this server.")

        @Argument(help: "The account.") var name: String
        @OptionGroup var options: ConfigurationOptions

        func run() async throws {
            let path = "/users/\(AdminConnection.segment(name))/promote"
            let answer = try await AdminConnection(configuration: try options.load()).send(.POST, path)
            Terminal.say("\(answer.root["user_id"]?.string ?? name) administers this server now.")
        }
    }

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "List all accounts.")

        @OptionGroup var options: ConfigurationOptions

        func run() async throws {
            let answer = try await AdminConnection(configuration: try options.load()).send(.GET, "/users")
            let users = answer.root["users"].map { Array($0.elements) } ?? []
            guard !users.isEmpty else {
                return Terminal.say("There are no accounts yet; `roost user create NAME` makes one.")
            }
            for user in users {
                var remarks: [String] = []
                if user["admin"]?.bool == true { remarks.append("administrator") }
                if user["deactivated"]?.bool == true { remarks.append("deactivated") }
                let name = user["user_id"]?.string ?? "?"
                Terminal.say(remarks.isEmpty ? name : "\(name)  (\(remarks.joined(separator: ", ")))")
            }
        }
    }

    struct Passwd: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Set an account's password and sign it out everywhere.",
            discussion: "The password is asked for, or read from standard input.")

        @Argument(help: "The account.") var name: String
        @OptionGroup var options: ConfigurationOptions

        func run() async throws {
            let configuration = try options.load()
            let password = try PasswordPrompt.newPassword(for: name)
            let answer = try await AdminConnection(configuration: configuration).send(
                .PUT, "/users/\(AdminConnection.segment(name))/password", ["password": .string(password)])
            Terminal.say("\(answer.root["user_id"]?.string ?? name) has a new password and is signed out everywhere.")
        }
    }

    struct Deactivate: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "End an account for good: nobody can sign in to it, or make it again.")

        @Argument(help: "The account.") var name: String
        @OptionGroup var options: ConfigurationOptions

        func run() async throws {
            let path = "/users/\(AdminConnection.segment(name))/deactivate"
            let answer = try await AdminConnection(configuration: try options.load()).send(.POST, path)
            Terminal.say("\(answer.root["user_id"]?.string ?? name) is deactivated.")
        }
    }
}
