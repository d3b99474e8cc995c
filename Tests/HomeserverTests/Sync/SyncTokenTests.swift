import Testing

@testable import Homeserver

@Suite("Tokens of syncs")
struct SyncTokenTests {
    @Test("a token remembers how far each process has told what is ephemeral")
    func processes() throws {
        var token = SyncToken(epoch: "e", position: 5, run: "a", ephemeral: 3)
        #expect(token.text == "s1-e-5-a-3")
        for (run, ephemeral) in [("b", Int64(7)), ("a", 4), ("c", 1)] {
            var next = SyncToken(epoch: "e", position: 6, run: run, ephemeral: ephemeral)
            next.remember(token)
            token = try #require(SyncToken(next.text))
            #expect(token == next)
        }
        #expect(token.ephemeral(of: "c") == 1 && token.ephemeral(of: "a") == 4 && token.ephemeral(of: "b") == 7)
        #expect(token.ephemeral(of: "d") == nil)
        for number in 0..<20 {
            var next = SyncToken(epoch: "e", position: 7, run: "n\(number)", ephemeral: 1)
            next.remember(token)
            token = next
        }
        #expect(token.others.count == 7 && token.others.first?.run == "n18")
        #expect(SyncToken(token.text) == token)
        // Clients need not encode it.
        #expect(
            token.text.utf8.allSatisfy {
                ("a"..."z").contains(Character(UnicodeScalar($0))) || "0123456789-._".utf8.contains($0)
            })
    }

    @Test(
        "what is no token is none",
        arguments: [
            "", "s1", "s1-e-5-a_b-3", "s1-e-5-a_b.x-3", "s1-e-5-a_b.-1-3", "s1-e-5-a_b.1.2-3", "s1-e--5-a-3",
            "s1-e-5-a" + String(repeating: "_b.1", count: 8) + "-3",
        ])
    func nonsense(text: String) { #expect(SyncToken(text) == nil) }
}
