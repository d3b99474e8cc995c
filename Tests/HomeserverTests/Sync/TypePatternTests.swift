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
        #expect(TypePattern(pattern).matches(Array(text.utf8)) == matches)
    }

    @Test("A14: hostile patterns cost no more than their length times the text's")
    func hostile() {
        // Backtracking over each star would take longer than the universe has existed.
        let pattern = TypePattern(String(repeating: "*a", count: 1_000) + "*b")
        #expect(!pattern.matches([UInt8](repeating: UInt8(ascii: "a"), count: 20_000)))
    }

    @Test("many of them say the same of a type whenever it comes, and of types that look alike")
    func many() {
        let patterns = TypePatterns((0..<300).map { "*.even\($0 * 2)" } + ["caf\u{E9}"])
        for _ in 0..<2 {
            for number in 0..<3 * TypePatterns.most {
                #expect(patterns.match("m.even\(number)") == (number % 2 == 0))
            }
            // The same letters in other bytes are another type.
            #expect(patterns.match("caf\u{E9}"))
            #expect(!patterns.match("cafe\u{301}"))
        }
    }
}
