/// The members of a JSON object in the order in which they were added; keys are compared by their bytes.
public struct JSONObject: Sendable, ExpressibleByDictionaryLiteral, Sequence {
    public typealias Element = (key: String, value: JSON)

    private var entries: [Element] = []
    /// Where a key stands in `entries`; kept from `indexThreshold` members on, so that a stranger's object with
    /// a hundred thousand members doesn't make look-ups quadratic.
    private var positions: [ByteString: Int]?

    private static let indexThreshold = 16

    public init() {}

    /// Of a key that stands twice the last value counts, at the place of the first.
    public init(_ members: some Sequence<(String, JSON)>) {
        entries.reserveCapacity(members.underestimatedCount)
        for (key, value) in members { self[key] = value }
    }

    public init(dictionaryLiteral elements: (String, JSON)...) { self.init(elements) }

    public var count: Int { entries.count }
    public var isEmpty: Bool { entries.isEmpty }
    public var keys: [String] { entries.map(\.key) }

    public subscript(_ key: String) -> JSON? {
        get { position(of: key).map { entries[$0].value } }
        set {
            guard let newValue else {
                remove(key)
                return
            }
            if let position = position(of: key) {
                entries[position].value = newValue
                return
            }
            entries.append((key, newValue))
            if positions != nil {
                positions?[ByteString(key)] = entries.count - 1
            } else if entries.count == Self.indexThreshold {
                rebuildPositions()
            }
        }
    }

    @discardableResult
    public mutating func remove(_ key: String) -> JSON? {
        guard let position = position(of: key) else { return nil }
        let removed = entries.remove(at: position).value
        if positions != nil { rebuildPositions() }
        return removed
    }

    public func makeIterator() -> IndexingIterator<[Element]> { entries.makeIterator() }

    private func position(of key: String) -> Int? {
        if let positions { return positions[ByteString(key)] }
        return entries.firstIndex { $0.key.hasSameBytes(as: key) }
    }

    private mutating func rebuildPositions() {
        positions =
            entries.count < Self.indexThreshold
            ? nil
            : Dictionary(
                uniqueKeysWithValues: entries.enumerated().map { (ByteString($0.element.key), $0.offset) })
    }
}

extension JSONObject: Hashable {
    /// Objects are equal if they have the same members, whatever their order.
    public static func == (a: Self, b: Self) -> Bool {
        a.count == b.count && a.entries.allSatisfy { b[$0.key] == $0.value }
    }

    public func hash(into hasher: inout Hasher) {
        hasher.combine(count)
        var mixed = 0
        for (key, value) in entries {
            var one = Hasher()
            key.hashBytes(into: &one)
            one.combine(value)
            mixed ^= one.finalize()
        }
        hasher.combine(mixed)
    }
}
