import Homeserver
import Testing

@testable import HomeserverHTTP

@Suite("Bodies of requests whose senders aren't known yet")
struct HeldBodiesTests {
    @Test("A16 A18 large ones take no end of memory, and small ones go on beside them")
    func bounds() throws {
        let all = HeldBodies(most: 1_000, ofAddress: 400, free: 100)
        func body(_ size: Int, from address: String?) throws -> HeldBodies.Body {
            let body = HeldBodies.Body(of: all, from: address)
            for _ in 0..<size / 50 { try body.add(50) }
            return body
        }
        // 200 of each are counted.
        var large = try [body(300, from: "a"), body(300, from: "a"), body(300, from: "b"), body(300, from: "b")]
        #expect(throws: MatrixError.self) { try body(150, from: "a") }
        let local = try body(300, from: nil)
        #expect(throws: MatrixError.self) { try body(150, from: "c") }
        #expect(throws: MatrixError.self) { try body(150, from: nil) }
        let small = try (0..<50).map { try body(100, from: ["a", "b", nil][$0 % 3]) }
        // Who is through, or was refused, gives back what was held.
        large.removeFirst()
        let another = try body(300, from: "a")
        #expect(throws: MatrixError.self) { try body(150, from: "a") }
        withExtendedLifetime((large, local, small, another)) {}
    }
}
