/// Measures one server, or two by turns, in what a load generator for any homeserver doesn't have: many other servers, large rooms,
/// what is stored, and what some do to others.
///
/// `beside --a COMMAND [--b COMMAND] [--only NAME,…] [--events COUNT] [--seconds LIMIT]`: a command runs a server in the foreground,
/// with plain HTTP on 127.0.0.1:{port} and all that it keeps in {dir}; open registration, no rate limits, certificates of other
/// servers not verified. Its words are parted by spaces. COUNT is that of `state-bytes`, LIMIT the time that each server has for a
/// scenario.
func besideSection(_ arguments: [String]) async throws {
    var options: [String: String] = [:]
    for (name, value) in zip(arguments, arguments.dropFirst()) where name.hasPrefix("--") { options[name] = value }
    let (events, limit) = (Int(options["--events"] ?? "") ?? 5_000, Double(options["--seconds"] ?? "") ?? 900)
    let subjects = ["A", "B"].compactMap { letter in
        options["--" + letter.lowercased()].map { Subject(letter, $0, events: events, limit: limit) }
    }
    guard !subjects.isEmpty else { throw BenchFailure(what: "beside --a COMMAND [--b COMMAND] [--only NAME,…]") }
    let wanted = options["--only"]?.split(separator: ",").map { String($0) }
    var tables: [String] = []
    for (name, scenario) in scenarios where wanted?.contains(name) ?? true {
        print("\n\(name)")
        for subject in subjects { await subject.run(scenario) }
        tables.append(table(name, subjects))
    }
    print("\n" + tables.joined(separator: "\n"))
}

private let scenarios: [(String, @Sendable (Subject) async throws -> Void)] = [
    ("start", startScenario), ("destinations", destinationsScenario), ("large-room", largeRoomScenario),
    ("neighbour", neighbourScenario), ("waiting-50", waiting50Scenario), ("state-bytes", stateBytesScenario),
]

private func table(_ name: String, _ subjects: [Subject]) -> String {
    var lines = ["| \(name) | | " + subjects.map(\.letter).joined(separator: " | ")]
    if subjects.count == 2 { lines[0] += " | B/A" }
    lines[0] += " |"
    lines.append("|---|---|" + String(repeating: "--:|", count: subjects.count == 2 ? 3 : 1))
    var told: [String] = []
    for figure in subjects.flatMap(\.figures) where !told.contains(figure.what) {
        told.append(figure.what)
        let values = subjects.map { subject in subject.figures.first { $0.what == figure.what }?.value }
        var cells = values.map { $0.map(number) ?? "–" }
        if subjects.count == 2 {
            if let a = values[0], let b = values[1], a > 0 { cells.append(number(b / a)) } else { cells.append("–") }
        }
        lines.append("| \(figure.what) | \(figure.unit) | \(cells.joined(separator: " | ")) |")
    }
    for subject in subjects {
        if let failure = subject.failure { lines.append("\n\(subject.letter): \(failure)") }
    }
    return lines.joined(separator: "\n") + "\n"
}

/// Three digits.
private func number(_ value: Double) -> String {
    let digits = value >= 100 ? 1.0 : value >= 10 ? 10 : 100
    let rounded = (value * digits).rounded() / digits
    return rounded == rounded.rounded() ? "\(Int(rounded))" : "\(rounded)"
}

/// The value that so large a share of all isn't above.
func percentile(_ values: [Double], _ share: Double) -> Double {
    let sorted = values.sorted()
    guard !sorted.isEmpty else { return 0 }
    return sorted[min(sorted.count - 1, Int((Double(sorted.count) * share).rounded(.up)) - 1)]
}

/// Until it is ready, and what it takes when nobody uses it.
@Sendable private func startScenario(_ subject: Subject) async throws {
    subject.note("ready with an empty database", subject.server.secondsToReady, "s")
    try await Task.sleep(for: .seconds(5))
    subject.note("idle memory (PSS)", subject.server.proportionalMemory(), "MiB")
    try await subject.room(try await subject.users("start", 2))
    try await subject.restart()
    subject.note("ready with data", subject.server.secondsToReady, "s")
}
