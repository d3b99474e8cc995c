/// A cache with a bound on what it holds, in whatever unit the sizes are given (bytes, as a rule).
///
/// When it is full, entries that have not been asked for since the hand last passed them are dropped (the clock
/// algorithm: an entry asked for again stays, at the cost of one flag).
public struct BoundedCache<Key: Hashable & Sendable, Value: Sendable>: Sendable {
    private struct Slot: Sendable {
        var key: Key
        var value: Value
        var size: Int
        var used: Bool
    }

    private var places: [Key: Int] = [:]
    private var slots: [Slot?] = []
    private var free: [Int] = []
    private var hand = 0
    private let capacity: Int
    public private(set) var size = 0

    public init(capacity: Int) { self.capacity = capacity }

    public var count: Int { places.count }

    public subscript(key: Key) -> Value? {
        mutating get {
            guard let place = places[key] else { return nil }
            slots[place]!.used = true
            return slots[place]!.value
        }
    }

    public mutating func insert(_ value: Value, for key: Key, size newSize: Int) {
        if let place = places[key] {
            size += newSize - slots[place]!.size
            slots[place] = Slot(key: key, value: value, size: newSize, used: true)
        } else {
            let slot = Slot(key: key, value: value, size: newSize, used: false)
            if let place = free.popLast() {
                slots[place] = slot
                places[key] = place
            } else {
                places[key] = slots.count
                slots.append(slot)
            }
            size += newSize
        }
        while size > capacity, !places.isEmpty { dropOne() }
    }

    public mutating func remove(_ key: Key) {
        guard let place = places.removeValue(forKey: key) else { return }
        size -= slots[place]!.size
        slots[place] = nil
        free.append(place)
    }

    public mutating func removeAll() {
        self = BoundedCache(capacity: capacity)
    }

    private mutating func dropOne() {
        while true {
            if hand >= slots.count { hand = 0 }
            defer { hand += 1 }
            guard let slot = slots[hand] else { continue }
            if slot.used {
                slots[hand]!.used = false
            } else {
                remove(slot.key)
                return
            }
        }
    }
}
