import Testing

@testable import Homeserver

@Suite("Patterns of event types in filters")
struct TypePatternTests {
    @Test(
        "match as the specification says",
        arguments: [
            ("m.room.*", "m.room.message", true), ("m.room.*", "m.room.", true), ("m.room.*", "m.room", false),
            ("*", "", true), ("", "", true), ("", "a", false), ("a*b*c", "aXbYc", true), ("a*b*c", "aXbY", false),
            ("*a", "bca", true), ("a", "ab", false), ("**", "x", true), ("a.c", "abc", false),
        ])
    func table(pattern: String, text: String, matches: Bool) {
        #expect(TypePattern(pattern).matches(text) == matches)
    }

    @Test("A14: hostile patterns cost no more than their length times the text's")
    func hostile() {
        // Backtracking over each star would take longer than the universe has existed.
        let pattern = TypePattern(String(repeating: "*a", count: 1_000) + "*b")
        #expect(!pattern.matches(String(repeating: "a", count: 20_000)))
    }
}
