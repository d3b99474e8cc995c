/// A node of a state tree, see ``StateTree``.
enum StateNode: Sendable {
    /// Up to ``StateTree/bucketSize`` entries, ordered by the mixed key.
    case bucket([StateEntry])
    /// Sixteen subtrees, by the next four bits of the mixed key; nil where there is nothing.
    case branch([StateReference?])
}

/// One entry of a state: which key, and the event that holds it.
public struct StateEntry: Sendable, Hashable {
    /// The number of a pair of event type and state key.
    public let key: StateKeyNID
    /// The number of the event.
    public let event: EventNID

    public init(key: StateKeyNID, event: EventNID) {
        self.key = key
        self.event = event
    }
}

/// Where a node lies: in which row of the room, and as which of its nodes.
struct StateReference: Sendable, Hashable {
    let row: Int64
    let index: Int
}

/// The nodes of one row. The root of the state that the row stands for is the last of them.
struct StateRow: Sendable {
    var nodes: [StateNode]

    var bytes: [UInt8] {
        var bytes: [UInt8] = []
        for node in nodes {
            switch node {
            case .bucket(let entries):
                Varint.append(UInt64(entries.count) << 1, to: &bytes)
                for entry in entries {
                    Varint.append(UInt64(bitPattern: entry.key.rawValue), to: &bytes)
                    Varint.append(UInt64(bitPattern: entry.event.rawValue), to: &bytes)
                }
            case .branch(let children):
                var bitmap: UInt64 = 0
                for (slot, child) in children.enumerated() where child != nil { bitmap |= 1 << UInt64(slot) }
                Varint.append(bitmap << 1 | 1, to: &bytes)
                for case let child? in children {
                    Varint.append(UInt64(child.row), to: &bytes)
                    Varint.append(UInt64(child.index), to: &bytes)
                }
            }
        }
        return bytes
    }

    init(nodes: [StateNode]) { self.nodes = nodes }

    init(bytes: [UInt8]) throws(DatabaseError) {
        nodes = []
        var index = 0
        func number() throws(DatabaseError) -> UInt64 {
            guard let number = Varint.read(bytes, &index) else { throw .corrupt("a state node is cut short") }
            return number
        }
        while index < bytes.count {
            let head = try number()
            if head & 1 == 0 {
                var entries: [StateEntry] = []
                for _ in 0..<(head >> 1) {
                    entries.append(
                        StateEntry(
                            key: StateKeyNID(Int64(bitPattern: try number())),
                            event: EventNID(Int64(bitPattern: try number()))))
                }
                nodes.append(.bucket(entries))
            } else {
                var children = [StateReference?](repeating: nil, count: 16)
                for slot in 0..<16 where (head >> 1) & (1 << UInt64(slot)) != 0 {
                    children[slot] = StateReference(
                        row: Int64(bitPattern: try number()), index: Int(truncatingIfNeeded: try number()))
                }
                nodes.append(.branch(children))
            }
        }
    }
}
