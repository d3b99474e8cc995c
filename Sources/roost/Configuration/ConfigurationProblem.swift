/// One wrong setting: where it is, which key, what is wrong and what would be right, in one line.
struct ConfigurationProblem: Error, CustomStringConvertible {
    /// `roost.yaml:12`, the name of an environment variable, or an option of the command line.
    var place: String
    /// The full path of the key; empty when the problem isn't one of a key.
    var key: String
    /// What is wrong; what would be right.
    var message: String

    var description: String {
        // The place is the key already when the setting comes from the environment.
        key.isEmpty ? "\(place): \(message)" : "\(place): \(key): \(message)"
    }
}

/// All wrong settings that were found; never empty.
struct ConfigurationProblems: Error {
    var problems: [ConfigurationProblem]

    init(_ problems: [ConfigurationProblem]) { self.problems = problems }

    init(_ problem: ConfigurationProblem) { problems = [problem] }
}
