/// A cache with a bound on what it holds, in whatever unit the sizes are given (bytes, as a rule).
///
/// When it is full, entries that have not been asked for since the hand last passed them are dropped (the clock
/// algorithm: an entry asked for again stays, at the cost of one flag).
///
/// Inlinable, because it is on the path of every request: who uses it from another module gets code of their own for it.
public struct BoundedCache<Key: Hashable & Sendable, Value: Sendable>: Sendable {
    @usableFromInline var places: [Key: Int] = [:]
    // One entry of each for every place; nil where nothing is.
    @usableFromInline var keys: [Key?] = []
    @usableFromInline var values: [Value?] = []
    @usableFromInline var sizes: [Int] = []
    /// Whether it was asked for since the hand passed.
    @usableFromInline var used: [Bool] = []
    @usableFromInline var free: [Int] = []
    @usableFromInline var hand = 0
    @usableFromInline let capacity: Int
    @usableFromInline var held = 0

    /// What all entries take together.
    public var size: Int { held }

    public init(capacity: Int) { self.capacity = capacity }

    @inlinable public var count: Int { places.count }

    @inlinable public subscript(key: Key) -> Value? {
        mutating get {
            guard let place = places[key] else { return nil }
            used[place] = true
            return values[place]
        }
    }

    @inlinable public mutating func insert(_ value: Value, for key: Key, size newSize: Int) {
        if let place = places[key] {
            held += newSize - sizes[place]
            values[place] = value
            sizes[place] = newSize
            used[place] = true
        } else {
            if let place = free.popLast() {
                keys[place] = key
                values[place] = value
                sizes[place] = newSize
                used[place] = false
                places[key] = place
            } else {
                places[key] = keys.count
                keys.append(key)
                values.append(value)
                sizes.append(newSize)
                used.append(false)
            }
            held += newSize
        }
        while held > capacity, !places.isEmpty { dropOne() }
    }

    @inlinable public mutating func remove(_ key: Key) {
        guard let place = places.removeValue(forKey: key) else { return }
        held -= sizes[place]
        keys[place] = nil
        values[place] = nil
        free.append(place)
    }

    public mutating func removeAll() {
        self = BoundedCache(capacity: capacity)
    }

    @inlinable mutating func dropOne() {
        while true {
            if hand >= keys.count { hand = 0 }
            defer { hand += 1 }
            guard let key = keys[hand] else { continue }
            if used[hand] {
                used[hand] = false
            } else {
                remove(key)
                return
            }
        }
    }
}
