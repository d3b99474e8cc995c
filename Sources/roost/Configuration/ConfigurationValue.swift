import Homeserver
import MatrixCore

/// Why a value can't be taken: where within the key, and what would be right.
struct ValueProblem: Error {
    var line: Int
    /// What follows the key's path, such as `[0].port`.
    var within = ""
    var message: String
}

/// Reads typed values out of nodes. Each function says what it wanted when it got something else.
struct ConfigurationValue {
    let node: YAMLNode
    /// The directory that relative paths start from.
    let base: String

    func problem(_ message: String) -> ValueProblem { ValueProblem(line: node.line, message: message) }

    private var shown: String {
        switch node.content {
        case .scalar(let text, _): node.isNull ? "nothing" : "“\(text)”"
        case .sequence: "a list"
        case .mapping: "a mapping"
        }
    }

    /// A text without surrounding spaces; not empty.
    func text(_ wanted: String) throws(ValueProblem) -> String {
        guard case .scalar(let text, _) = node.content, !node.isNull, !text.isEmpty else {
            throw problem("\(shown) is not \(wanted)")
        }
        return text
    }

    func truth() throws(ValueProblem) -> Bool {
        switch node.content {
        case .scalar("true", isPlain: true): return true
        case .scalar("false", isPlain: true): return false
        default: throw problem("\(shown) is neither true nor false; write one of the two, without quotes")
        }
    }

    func integer(in range: ClosedRange<Int>) throws(ValueProblem) -> Int {
        guard case .scalar(let text, _) = node.content, let number = Int(text), range.contains(number) else {
            throw problem("\(shown) is not a number from \(range.lowerBound) to \(range.upperBound)")
        }
        return number
    }

    /// A number of bytes, alone or with a unit.
    func size() throws(ValueProblem) -> Int {
        try scaled(
            [
                ("", 1), ("B", 1), ("kB", 1000), ("KB", 1000), ("MB", 1_000_000), ("GB", 1_000_000_000),
                ("K", 1 << 10), ("M", 1 << 20), ("G", 1 << 30), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30),
            ], wanted: "a size; write a number of bytes or one with KiB, MiB or GiB, such as 100MiB")
    }

    /// A time in seconds.
    func seconds() throws(ValueProblem) -> Int {
        let seconds = try scaled(
            [("s", 1), ("m", 60), ("h", 3600), ("d", 86400), ("w", 7 * 86400)],
            wanted: "a duration; write a number with s, m, h, d or w, such as 12h")
        guard seconds <= Self.longest else { throw problem("\(shown) is too long; write 365000d at most") }
        return seconds
    }

    /// A thousand years: longer ones would not fit where they are counted in smaller units and added to the time of day.
    private static let longest = 365_000 * 86400

    /// The beginning of a day, in milliseconds since 1970, in the time zone of Greenwich.
    func date() throws(ValueProblem) -> Int64 {
        let text = try text("a date, such as 2026-09-01")
        let parts = text.split(separator: "-", omittingEmptySubsequences: false).map { Int($0) ?? -1 }
        guard parts.count == 3, (1970...9999).contains(parts[0]), (1...12).contains(parts[1]),
            (1...Self.days(of: parts[1], in: parts[0])).contains(parts[2])
        else { throw problem("\(shown) is not a date; write one like 2026-09-01") }
        let whole = (1970..<parts[0]).reduce(0) { $0 + (Self.isLeap($1) ? 366 : 365) }
        let days = (1..<parts[1]).reduce(whole) { $0 + Self.days(of: $1, in: parts[0]) } + parts[2] - 1
        return Int64(days) * 86_400_000
    }

    private static func isLeap(_ year: Int) -> Bool { year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) }

    private static func days(of month: Int, in year: Int) -> Int {
        month == 2 ? (isLeap(year) ? 29 : 28) : [4, 6, 9, 11].contains(month) ? 30 : 31
    }

    private func scaled(_ units: [(name: String, factor: Int)], wanted: String) throws(ValueProblem) -> Int {
        guard case .scalar(let text, _) = node.content else { throw problem("\(shown) is not \(wanted)") }
        let digits = text.prefix { $0.isASCII && $0.isNumber }
        let unit = text.dropFirst(digits.count).drop { $0 == " " }
        guard let number = Int(digits), let factor = units.first(where: { $0.name == unit })?.factor,
            !number.multipliedReportingOverflow(by: factor).overflow
        else { throw problem("\(shown) is not \(wanted)") }
        return number * factor
    }

    /// A path; a relative one starts from `base`.
    func path() throws(ValueProblem) -> String {
        Paths.resolve(try text("a path"), from: base)
    }

    /// A URL that browsers open.
    func webAddress() throws(ValueProblem) -> String {
        let text = try text("a URL, such as https://example.org/help")
        let isWeb = ["https://", "http://"].contains { text.hasPrefix($0) && text.utf8.count > $0.utf8.count }
        guard isWeb, !text.contains(where: { " \"<>\\".contains($0) }) else {
            throw problem("“\(text)” is not a URL; write one like https://example.org/help")
        }
        return text
    }

    func choice<Choice: RawRepresentable<String> & CaseIterable>(_: Choice.Type) throws(ValueProblem) -> Choice {
        let names = Choice.allCases.map(\.rawValue)
        guard case .scalar(let text, _) = node.content, let choice = Choice(rawValue: text) else {
            throw problem("\(shown) is not possible; write \(names.joined(separator: ", ").replacingLastComma())")
        }
        return choice
    }

    func range() throws(ValueProblem) -> AddressRange {
        let wanted = "an address or a block of addresses, such as 10.0.0.0/8 or fd00::/8"
        guard let range = AddressRange(try text(wanted)) else { throw problem("\(shown) is not \(wanted)") }
        return range
    }

    func list<Element>(
        _ read: (ConfigurationValue) throws(ValueProblem) -> Element
    ) throws(ValueProblem) -> [Element] {
        guard case .sequence(let nodes) = node.content else {
            throw problem("\(shown) is not a list; write [one, two], or [] for none")
        }
        var elements: [Element] = []
        for (index, node) in nodes.enumerated() {
            do {
                elements.append(try read(ConfigurationValue(node: node, base: base)))
            } catch {
                throw ValueProblem(line: error.line, within: "[\(index)]\(error.within)", message: error.message)
            }
        }
        return elements
    }

    /// nil for `null`, else what `read` makes of it.
    func optional<Wrapped>(
        _ read: (ConfigurationValue) throws(ValueProblem) -> Wrapped
    ) throws(ValueProblem) -> Wrapped? {
        node.isNull ? nil : try read(self)
    }

    /// The members of a mapping that may have the given names and no others.
    func members(_ names: [String]) throws(ValueProblem) -> [String: ConfigurationValue] {
        guard case .mapping(let pairs) = node.content else {
            throw problem("\(shown) is not a mapping of \(names.joined(separator: ", ").replacingLastComma("and"))")
        }
        var members: [String: ConfigurationValue] = [:]
        for (key, value) in pairs {
            guard case .scalar(let name, _) = key.content, names.contains(name) else {
                let name = ConfigurationValue(node: key, base: base).shown
                throw ValueProblem(
                    line: key.line, message: "\(name) is not a key here; there are \(names.joined(separator: ", "))")
            }
            guard members.updateValue(ConfigurationValue(node: value, base: base), forKey: name) == nil else {
                throw ValueProblem(line: key.line, within: ".\(name)", message: "this is written twice; keep one")
            }
        }
        return members
    }
}

extension ValueProblem {
    /// The same problem, seen from the mapping that has the member.
    func within(_ member: String) -> ValueProblem {
        ValueProblem(line: line, within: ".\(member)\(within)", message: message)
    }
}

extension String {
    /// `a, b, c` becomes `a, b or c`.
    fileprivate func replacingLastComma(_ word: String = "or") -> String {
        guard let comma = ranges(of: ", ").last else { return self }
        return replacingCharacters(in: comma, with: " \(word) ")
    }

    private func replacingCharacters(in range: Range<Index>, with text: String) -> String {
        String(self[..<range.lowerBound]) + text + String(self[range.upperBound...])
    }
}

/// File paths as text.
enum Paths {
    /// An absolute path stays; a relative one is taken from `base`.
    static func resolve(_ path: String, from base: String) -> String {
        path.hasPrefix("/") || base.isEmpty ? path : base.hasSuffix("/") ? base + path : "\(base)/\(path)"
    }

    /// The directory of a file; empty for a name alone.
    static func directory(of path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return "" }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }
}
