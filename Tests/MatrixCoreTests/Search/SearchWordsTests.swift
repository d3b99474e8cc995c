import Testing

@testable import MatrixCore

@Suite("Words of messages")
struct SearchWordsTests {
    private static let texts = [
        "Tea at five", "TEA", "a teapot", "t e a", "\u{212A}elvin", "Te\u{301}a tea", "line\ntea", "日本語 tea",
        "tea/pot \"tea\"",
        "\\u0074ea", "", "te", "xtea teax",
    ]

    @Test("a quick look never says no where a word is", arguments: texts)
    func quickLook(text: String) throws {
        let content: JSON = ["msgtype": "m.text", "body": .string(text)]
        let json = content.encoded()
        let words = SearchWords.split(text)
        for word in words { #expect(SearchWords.mayHold(word, in: json)) }
        // The same text with each of its letters escaped.
        let escaped = text.unicodeScalars.map { scalar in
            let digits = String(scalar.value, radix: 16)
            return scalar.value < 0x10000
                ? "\\u" + String(repeating: "0", count: 4 - digits.count) + digits : String(scalar)
        }.joined()
        for word in words { #expect(SearchWords.mayHold(word, in: Array("{\"body\":\"\(escaped)\"}".utf8))) }
    }

    @Test("and mostly says no where it isn't")
    func quickNo() {
        #expect(!SearchWords.mayHold(Array("needle".utf8), in: Array(#"{"body":"hay, needl and eedle"}"#.utf8)))
        #expect(!SearchWords.mayHold(Array("tea".utf8), in: []))
    }
}
