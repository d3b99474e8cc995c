import MatrixCore
import Testing

@Suite("Texts of strangers")
struct ShortenedTextTests {
    @Test("A13 a text is cut by what it takes, not by what people call a character")
    func shortened() {
        #expect("short".shortened(to: 100) == "short" && "".shortened(to: 0).isEmpty)
        #expect("é東🙂x".shortened(to: 3) == "é東🙂" && "abcdef".shortened(to: 3) == "abc")
        let marks = "a" + String(repeating: "\u{301}", count: 100_000)
        #expect(marks.count == 1 && marks.shortened(to: 100).utf8.count == 199)
    }
}
