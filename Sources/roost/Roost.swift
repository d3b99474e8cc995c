import ArgumentParser

@main
struct Roost: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "roost", abstract: "A Matrix homeserver.")
}
