import Glibc
import Logging
import MatrixCore

/// One line of the log, before it is written.
struct LogLine {
    let time: timespec
    let level: Logger.Level
    let label: String
    let message: String
    let metadata: [(key: String, value: String)]

    static func now() -> timespec {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return time
    }

    /// `2026-01-31 23:59:59.123 INFO     http  answered  method=GET status=200`
    func text(isColoured: Bool) -> String {
        var name = level.rawValue.uppercased()
        name += String(repeating: " ", count: max(0, 8 - name.count))
        let place = label + String(repeating: " ", count: max(0, 10 - label.count))
        var line = "\(timestamp(separator: " ")) \(isColoured ? Self.colour(level, name) : name) \(place) "
        line += Self.printable(message)
        for (key, value) in metadata {
            let shown = Self.printable(value)
            line += " \(key)=\(shown.contains(" ") || shown.isEmpty ? "\"\(shown)\"" : shown)"
        }
        return line + "\n"
    }

    var json: String {
        var object: JSONObject = [
            "time": .string(timestamp(separator: "T") + "Z"), "level": .string(level.rawValue),
            "label": .string(label), "message": .string(message),
        ]
        for (key, value) in metadata {
            object[object[key] == nil ? key : "metadata.\(key)"] = .string(value)
        }
        return String(decoding: JSON.object(object).encoded(), as: UTF8.self) + "\n"
    }

    private func timestamp(separator: String) -> String {
        var seconds = time.tv_sec
        var parts = tm()
        gmtime_r(&seconds, &parts)
        func digits(_ number: some BinaryInteger, _ width: Int = 2) -> String {
            let text = String(number)
            return String(repeating: "0", count: max(0, width - text.count)) + text
        }
        let date = "\(1900 + parts.tm_year)-\(digits(parts.tm_mon + 1))-\(digits(parts.tm_mday))"
        let clock = "\(digits(parts.tm_hour)):\(digits(parts.tm_min)):\(digits(parts.tm_sec))"
        return "\(date)\(separator)\(clock).\(digits(time.tv_nsec / 1_000_000, 3))"
    }

    /// A stranger's text can neither begin a line of its own nor send commands to the terminal.
    private static func printable(_ text: String) -> String {
        guard text.unicodeScalars.contains(where: isControl) else { return text }
        return text.unicodeScalars.map { isControl($0) ? "\\u{\(String($0.value, radix: 16))}" : String($0) }.joined()
    }

    private static func isControl(_ scalar: Unicode.Scalar) -> Bool {
        scalar.value < 0x20 || (0x7F...0x9F).contains(scalar.value) || scalar.properties.isBidiControl
    }

    private static func colour(_ level: Logger.Level, _ text: String) -> String {
        let code =
            switch level {
            case .trace, .debug: "2"
            case .info: "32"
            case .notice: "36"
            case .warning: "33"
            case .error, .critical: "1;31"
            }
        return "\u{1B}[\(code)m\(text)\u{1B}[0m"
    }
}
