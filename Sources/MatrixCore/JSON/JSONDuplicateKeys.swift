/// Finds a key that an object has twice.
///
/// Only asked about objects whose keys do not ascend: ascending keys are distinct. A hostile object with a hundred
/// thousand keys costs one sort.
enum JSONDuplicateKeys {
    /// The byte offset of a repeated key among `members` members whose first key word stands at `first`.
    static func first(
        in tape: UnsafeBufferPointer<UInt64>, members: Int, from first: Int, base: UnsafePointer<UInt8>
    ) -> Int? {
        var keys: [JSONTapeWord] = []
        keys.reserveCapacity(members)
        var hasEscapes = false
        var index = first
        for _ in 0..<members {
            let key = JSONTapeWord(bits: tape[index])
            keys.append(key)
            hasEscapes = hasEscapes || key.flag
            let value = JSONTapeWord(bits: tape[index + 1])
            index = value.isContainer ? value.extent : index + 2
        }
        if hasEscapes { return firstAmongEscaped(keys, base: base) }
        return members <= 24 ? firstByPairs(keys, base: base) : firstBySorting(keys, base: base)
    }

    private static func firstByPairs(_ keys: [JSONTapeWord], base: UnsafePointer<UInt8>) -> Int? {
        for later in 1..<max(keys.count, 1) {
            let key = keys[later]
            for earlier in 0..<later where keys[earlier].extent == key.extent {
                if Bytes.isEqual(base + keys[earlier].start, base + key.start, key.extent) { return key.start }
            }
        }
        return nil
    }

    private static func firstBySorting(_ keys: [JSONTapeWord], base: UnsafePointer<UInt8>) -> Int? {
        let sorted = keys.sorted { a, b in
            a.extent != b.extent
                ? a.extent < b.extent : Bytes.isLess(base + a.start, a.extent, base + b.start, b.extent)
        }
        for (a, b) in zip(sorted, sorted.dropFirst()) where a.extent == b.extent {
            if Bytes.isEqual(base + a.start, base + b.start, a.extent) { return max(a.start, b.start) }
        }
        return nil
    }

    /// `"\u0061"` and `"a"` are the same key.
    private static func firstAmongEscaped(_ keys: [JSONTapeWord], base: UnsafePointer<UInt8>) -> Int? {
        var seen = Set<[UInt8]>(minimumCapacity: keys.count)
        for key in keys {
            let content = UnsafeBufferPointer(start: base + key.start + 1, count: key.extent - 2)
            let decoded = key.flag ? JSONEscapes.decode(content) : [UInt8](content)
            if !seen.insert(decoded).inserted { return key.start }
        }
        return nil
    }
}
