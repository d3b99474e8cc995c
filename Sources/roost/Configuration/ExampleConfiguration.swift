/// The example file, made from the list of keys.
enum ExampleConfiguration {
    static var text: String {
        var lines = [
            "# The configuration of Roost. Every key is shown with its default; what you leave out keeps it.",
            "# Paths are relative to this file. Every key is also an environment variable:",
            "# ROOST_ and the path in upper case with _ for dots, such as ROOST_REGISTRATION_MODE=open.",
        ]
        var section = ""
        for key in ConfigurationKey.all {
            let parts = key.path.split(separator: ".").map(String.init)
            let indent = parts.count == 2 ? "  " : ""
            if parts.count == 2, parts[0] != section {
                lines += ["", "\(parts[0]):"]
            } else if parts.count == 1 || parts[0] != section {
                lines.append("")
            }
            section = parts.count == 2 ? parts[0] : ""
            lines += wrap(key.meaning, width: 100 - indent.count).map { "\(indent)# \($0)" }
            lines.append("\(indent)\(parts[parts.count - 1]): \(key.standard)")
        }
        return lines.joined(separator: "\n") + "\n"
    }

    /// The table of the README.
    static var table: String {
        let rows = ConfigurationKey.all.map { "| `\($0.path)` | `\($0.standard)` | \($0.meaning) |" }
        return (["| key | default | meaning |", "|---|---|---|"] + rows).joined(separator: "\n") + "\n"
    }

    private static func wrap(_ text: String, width: Int) -> [String] {
        var lines: [String] = []
        for word in text.split(separator: " ") {
            if let last = lines.last, last.count + word.count < width {
                lines[lines.count - 1] = "\(last) \(word)"
            } else {
                lines.append(String(word))
            }
        }
        return lines
    }
}
