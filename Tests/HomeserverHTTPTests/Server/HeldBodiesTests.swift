import Homeserver
import Testing

@testable import HomeserverHTTP

@Suite("Bodies of requests whose senders aren't known yet")
struct HeldBodiesTests {
    @Test("A16 A18 large ones wait for no end of memory, and small ones go on beside them")
    func bounds() throws {
        let all = HeldBodies(most: 1_000, free: 100)
        var large: [HeldBodies.Body] = []
        for _ in 0..<3 {
            let body = HeldBodies.Body(of: all)
            for _ in 0..<3 { try body.add(100) }
            large.append(body)
        }
        let another = HeldBodies.Body(of: all)
        try another.add(100)
        #expect(throws: MatrixError.self) { try another.add(1) }
        for _ in 0..<50 { try HeldBodies.Body(of: all).add(100) }
        // Who is refused, or is through, gives back what was held.
        large.removeLast()
        try another.add(100)
        try HeldBodies.Body(of: all).add(150)
    }
}
