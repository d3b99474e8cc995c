import RoostTestSupport
import Testing

@testable import Database

@Suite("Packed columns and caches")
struct PackingTests {
    @Test("packed numbers come back as they were")
    func numbers() throws {
        let numbers: [Int64] = [0, 1, 127, 128, 16_384, 1 << 40, .max, -1, .min]
        #expect(try PackedNumbers.unpack(PackedNumbers.pack(numbers)) == numbers)
        #expect(throws: DatabaseError.self) { try PackedNumbers.unpack([0xff]) }
    }

    @Test("cuts come back as they were, and foreign bytes are refused or harmless")
    func cuts() throws {
        let cuts = [0..<0, 5..<20, 20..<21, 300..<70_000]
        #expect(try StoredEvent.unpackCuts(StoredEvent.packCuts(cuts)) == cuts)
        #expect(throws: DatabaseError.self) { try StoredEvent.unpackCuts([0x05]) }
        #expect(throws: DatabaseError.self) { try StoredEvent.unpackCuts([0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 0x01]) }
    }

    @Test("a cache never holds more than its capacity, and keeps what is asked for")
    func cache() {
        var cache = BoundedCache<Int, Int>(capacity: 1_000)
        var generator = SeededGenerator(seed: 3)
        for number in 0..<10_000 {
            cache.insert(number, for: number, size: Int.random(in: 1...50, using: &generator))
            #expect(cache.size <= 1_000)
            _ = cache[0]
            if number % 7 == 0 { cache.remove(number - 3) }
        }
        #expect(cache[0] == 0)
        #expect(cache[5] == nil)
        cache.insert(1, for: 1, size: 2_000)
        #expect(cache.size <= 1_000)
    }
}
