import MatrixCore
import Testing

@Suite("Claimed times")
struct ClaimedTimeTests {
    @Test(
        "A11 what has passed since a time is never below zero, and within canonical JSON",
        arguments: [
            (1_000, 400, 600), (1_000, 1_000, 0), (1_000, 1_001, 0), (1_000, .max, 0), (1_000, .min, 1 << 53 - 1),
            (1_000, -1, 1_001), (.max, 0, 1 << 53 - 1), (.min, .max, 0), (-5, .min, 1 << 53 - 1),
        ] as [(Int64, Int64, Int64)])
    func elapsed(now: Int64, claimed: Int64, expected: Int64) { #expect(now.elapsed(since: claimed) == expected) }
}
