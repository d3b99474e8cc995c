import Glibc
import MatrixCore
import Testing

@testable import roost

@Suite struct LogLineTests {
    private func line(_ message: String, _ metadata: [(String, String)] = []) -> LogLine {
        LogLine(
            time: timespec(tv_sec: 1_700_000_000, tv_nsec: 7_000_000), level: .info, label: "http", message: message,
            metadata: metadata.map { ($0.0, $0.1) })
    }

    @Test("a line for people is aligned and has what belongs to it")
    func text() {
        #expect(
            line("answered", [("status", "200"), ("reason", "a b")]).text(isColoured: false)
                == "2023-11-14 22:13:20.007 INFO     http       answered status=200 reason=\"a b\"\n")
    }

    @Test("a stranger's text can neither begin a line nor command the terminal")
    func injection() {
        let text = line("a\nb", [("x", "\u{1B}[2J\r")]).text(isColoured: false)
        #expect(text.dropLast().allSatisfy { !$0.isNewline && $0 != "\u{1B}" })
    }

    @Test("a line for programs is one JSON object")
    func json() throws {
        let text = line("a \"quoted\"\n", [("status", "200"), ("level", "x")]).json
        let object = try JSONDocument(parsing: Array(text.dropLast().utf8)).root
        #expect(object["message"]?.string == "a \"quoted\"\n")
        #expect(object["status"]?.string == "200")
        #expect(object["level"]?.string == "info")
        #expect(object["time"]?.string == "2023-11-14T22:13:20.007Z")
        #expect(text.filter(\.isNewline).count == 1)
    }
}
