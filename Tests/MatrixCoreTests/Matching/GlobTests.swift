import Testing

@testable import MatrixCore

/// Appendices, Glob-style matching; Client-Server API, Push Rules, `event_match`.
@Suite("Globs") struct GlobTests {
    @Test(
        "whole texts",
        arguments: [
            ("", "", true), ("", "a", false), ("a", "a", true), ("a", "A", true), ("A", "a", true), ("a", "b", false),
            ("a", "aa", false),
            ("*", "", true), ("*", "abc", true), ("**", "", true), ("?", "", false), ("?", "a", true), ("?", "é", true),
            ("?", "😀", true),
            ("?", "ab", false), ("a*c", "ac", true), ("a*c", "abbbc", true), ("a*c", "abbb", false),
            ("*.example.org", "a.b.example.org", true),
            ("*.example.org", "example.org", false), ("a?c", "abc", true), ("a?c", "ac", false),
            ("*a*b*c*", "xxaxxbxxcxx", true),
            ("*a*b*c*", "xxaxxcxxbxx", false), ("ab*ab", "ab", false), ("ab*ab", "abab", true), ("*?*", "", false),
            ("*?*", "x", true),
            ("[a]", "[a]", true), ("[a]", "a", false), ("a.c", "abc", false), ("\\*", "*", false),
            ("lunc?*", "Lunch plans", true),
            ("lunc?*", "LUNCH", true), ("lunc?*", " lunch", false), ("lunc?*", "lunc", false), ("Ä", "ä", true),
        ])
    func whole(pattern: String, text: String, isMatch: Bool) {
        #expect(Glob(pattern).matches(text) == isMatch)
    }

    @Test(
        "parts between word boundaries",
        arguments: [
            ("ex*ple", "An example event.", true), ("ex*ple", "exple", true),
            ("ex*ple", "An exciting triple-whammy", true),
            ("cake", "cake", true), ("cake", "a cake!", true), ("cake", "cakes", false), ("cake", "pancake", false),
            ("cake", "cake_", false), ("cake", "(cake)", true), ("cake", "", false), ("cake", "pancake cake", true),
            ("cake*lie", "the cake is a lie", true),
            ("alice", "bob:alice,", true), ("a?c", "x abc y", true), ("é", "caé", true),
            ("c++", "I like c++ a lot", true),
            ("foo bar", "my foo bar is", true), ("foo", "foo-bar", true), ("@room", "hey @room!", true),
            ("", "x", true),
        ])
    func words(pattern: String, text: String, isMatch: Bool) {
        #expect(Glob(pattern).matches(text, .words) == isMatch)
        // Long patterns go another way, with the same result.
        let filler = String(repeating: "z", count: 70)
        #expect(Glob(filler + " " + pattern).matches(filler + " " + text, .whole) == Glob(pattern).matches(text))
    }

    @Test("literals have no special characters")
    func literals() {
        #expect(Glob(literal: "a*b?").matches("hello a*b?!", .words))
        #expect(!Glob(literal: "a*b?").matches("axbx", .words))
    }

    @Test("against a plain recursive definition", arguments: 0..<2_000)
    func reference(seed: Int) {
        var random = SplitMix(seed: UInt64(seed))
        let length = random.below(2) == 0 ? 8 : 90
        let pattern = String((0..<random.below(length)).map { _ in "ab?*"[Int(random.below(4))] })
        let text = String((0..<random.below(12)).map { _ in "abc"[Int(random.below(3))] })
        #expect(Glob(pattern).matches(text) == matches(Array(pattern)[...], Array(text)[...]), "\(pattern) \(text)")
    }

    func matches(_ pattern: ArraySlice<Character>, _ text: ArraySlice<Character>) -> Bool {
        guard let first = pattern.first else { return text.isEmpty }
        let rest = pattern.dropFirst().drop { first == "*" && $0 == "*" }
        if first == "*" { return (0...text.count).contains { matches(rest, text.dropFirst($0)) } }
        guard let character = text.first, first == "?" || first == character else { return false }
        return matches(rest, text.dropFirst())
    }

    @Test("A14 hostile patterns and texts cost no more than others", .timeLimit(.minutes(1)))
    func hostile() {
        let text = String(repeating: "a", count: 65_000)
        for pattern in [
            String(repeating: "*a", count: 31) + "*b", String(repeating: "a*", count: 500) + "b",
            String(repeating: "?*", count: 500) + "b",
            String(repeating: "*", count: 1_000) + "b", String(repeating: "a?", count: 500) + "*b",
        ] {
            let glob = Glob(pattern)
            #expect(!glob.matches(text))
            #expect(!glob.matches(text, .words))
        }
        // Patterns that nobody means match nothing, not even themselves.
        let long = String(repeating: "a", count: Glob.maxLength + 1)
        #expect(!Glob(long).matches(long))
        #expect(Glob(String(long.dropFirst())).matches(String(long.dropFirst())))
        #expect(!Glob(String(repeating: "*", count: 100_000)).matches("a"))
    }
}

extension String {
    subscript(index: Int) -> Character { self[self.index(startIndex, offsetBy: index)] }
}

/// A small generator for tests, so that a seed makes a failure repeatable.
struct SplitMix: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed &+ 0x9E37_79B9_7F4A_7C15 }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }

    mutating func below(_ limit: Int) -> Int { Int(next() % UInt64(limit)) }

    mutating func pick<T>(_ elements: [T]) -> T { elements[below(elements.count)] }
}
