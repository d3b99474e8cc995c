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

    @Test(
        "it finds a word, and what it can't judge, at whatever place",
        arguments: ["x", "tea", "a-word-longer-than-a-block"])
    func everyPlace(word: String) {
        let bytes = Array(word.utf8)
        for before in 0..<40 {
            for after in 0..<40 {
                let texts = [word, word.uppercased(), "\u{E9}", "\\u0020"]
                for text in texts {
                    let padded =
                        [UInt8](repeating: 0x20, count: before) + text.utf8 + [UInt8](repeating: 0x20, count: after)
                    #expect(SearchWords.mayHold(bytes, in: padded))
                }
                let cut =
                    [UInt8](repeating: 0x20, count: before) + bytes.dropLast() + [UInt8](repeating: 0x20, count: after)
                #expect(!SearchWords.mayHold(bytes, in: cut))
            }
        }
    }
}
