/// The state of a room as a persistent map from state keys to events, with structure shared between snapshots.
///
/// A tree of sixteen branches a level over a mixed form of the key's number, with buckets of up to ``bucketSize``
/// entries at its ends. A snapshot is named by the number of a row of `state_nodes`; its root is the last node of that
/// row. A change writes one row with the nodes from the root to the changed bucket, some 300 to 600 bytes in a room of
/// 100,000 members, and shares all others. The shape depends on the content alone, so that equal parts of two trees made
/// one from the other are the same nodes, and a comparison costs time in proportion to the difference.
///
/// Rows are immutable, so what a cache holds of them never becomes wrong.
public struct StateTree: Sendable {
    static let bucketSize = 16
    /// Nodes of a row that is being filled with many nodes; then the next row begins, so that reading one key of a
    /// large state never reads all of it.
    static let nodesPerRow = 16

    let rows: StateRows
    let room: RoomNID
    /// Rows made by ``change(_:in:nextRow:_:)`` that are not committed yet. They become known to others only by
    /// ``committed()``: until then their numbers may still be given to something else.
    private var fresh: [Int64: StateRow] = [:]

    public init(rows: StateRows, room: RoomNID) {
        self.rows = rows
        self.room = room
    }

    /// The event that holds a key. Reads at most one row for each level: five in a room of 100,000 members.
    public func event(for key: StateKeyNID, in state: StateNID, _ reader: any Reader) async throws -> EventNID? {
        guard var node = try await root(state, reader) else { return nil }
        let mixed = Self.mix(key)
        var level = 0
        while true {
            switch node {
            case .bucket(let entries): return entries.first { $0.key == key }?.event
            case .branch(let children):
                guard let child = children[Self.slot(mixed, level)] else { return nil }
                node = try await load(child, reader)
                level += 1
            }
        }
    }

    /// All entries. Reads every row of the state.
    public func entries(in state: StateNID, _ reader: any Reader) async throws -> [StateEntry] {
        var found: [StateEntry] = []
        if let node = try await root(state, reader) { try await collect(node, reader, into: &found) }
        return found
    }

    /// One difference between two states.
    public struct Difference: Sendable, Hashable {
        public let key: StateKeyNID
        public let old: EventNID?
        public let new: EventNID?
    }

    /// Where two states of the room differ, in time proportional to the differences.
    public func differences(from old: StateNID, to new: StateNID, _ reader: any Reader) async throws -> [Difference] {
        if old == new { return [] }
        var found: [Difference] = []
        try await compare(try await root(old, reader), try await root(new, reader), 0, reader, into: &found)
        return found
    }

    /// The rows that a changed state needs: to be written with the numbers they carry.
    public struct Change: Sendable {
        /// The number of the new state: that of the last new row, or an older one if nothing is different.
        public let state: StateNID
        public let rows: [(number: Int64, bytes: [UInt8])]
    }

    /// Makes a state from another one by setting keys (or removing them: nil).
    ///
    /// - Parameters:
    ///   - state: the state to begin with; 0 for the empty one.
    ///   - nextRow: the first row number of the room that is not in use.
    public mutating func change(
        _ changes: [StateKeyNID: EventNID?], in state: StateNID, nextRow: Int64, _ reader: any Reader
    ) async throws -> Change {
        var writer = StateRowWriter(nextRow: nextRow)
        let sorted = changes.map { (mixed: Self.mix($0.key), key: $0.key, event: $0.value) }.sorted {
            $0.mixed < $1.mixed
        }
        let base = try await root(state, reader)
        let root = try await change(base, sorted[...], 0, reader, &writer)
        guard let root else {
            // What did not change is the state it was; the empty state has the number 0.
            return Change(state: base == nil || changes.isEmpty ? state : StateNID(0), rows: [])
        }
        switch root {
        case .kept: return Change(state: state, rows: [])
        case .made(let node): writer.add(node)
        }
        writer.endRow()
        for (number, row) in writer.finished { fresh[number] = row }
        return Change(
            state: StateNID(writer.finished.last!.number), rows: writer.finished.map { ($0.number, $0.row.bytes) })
    }

    /// Tells that the rows made since are in the database.
    public mutating func committed() {
        rows.remember(room, fresh)
        fresh = [:]
    }

    // MARK: - Walking

    /// A bijection of 64-bit numbers whose low bits depend on all bits, so that trees of consecutive numbers are even.
    static func mix(_ key: StateKeyNID) -> UInt64 {
        var value = UInt64(bitPattern: key.rawValue)
        value ^= value >> 33
        value = value &* 0xff51_afd7_ed55_8ccd
        value ^= value >> 33
        value = value &* 0xc4ce_b9fe_1a85_ec53
        value ^= value >> 33
        return value
    }

    /// Which branch a mixed key takes; levels use its bits from the highest on, so that sorting groups the keys.
    static func slot(_ mixed: UInt64, _ level: Int) -> Int { Int((mixed >> UInt64(60 - 4 * level)) & 15) }

    private func row(_ number: Int64, _ reader: any Reader) async throws -> StateRow {
        if let row = fresh[number] { return row }
        return try await rows.row(room, number, reader)
    }

    private func root(_ state: StateNID, _ reader: any Reader) async throws -> StateNode? {
        if state.rawValue == 0 { return nil }
        return try await row(state.rawValue, reader).nodes.last
    }

    private func load(_ reference: StateReference, _ reader: any Reader) async throws -> StateNode {
        let nodes = try await row(reference.row, reader).nodes
        guard nodes.indices.contains(reference.index) else {
            throw DatabaseError.corrupt("state row \(reference.row) of room \(room) lacks node \(reference.index)")
        }
        return nodes[reference.index]
    }

    private func collect(_ node: StateNode, _ reader: any Reader, into found: inout [StateEntry]) async throws {
        switch node {
        case .bucket(let entries): found += entries
        case .branch(let children):
            for case let child? in children { try await collect(try await load(child, reader), reader, into: &found) }
        }
    }

    private func compare(
        _ old: StateNode?, _ new: StateNode?, _ level: Int, _ reader: any Reader, into found: inout [Difference]
    ) async throws {
        if case .branch(let before)? = old, case .branch(let after)? = new {
            for slot in 0..<16 where before[slot] != after[slot] {
                var left: StateNode?
                var right: StateNode?
                if let reference = before[slot] { left = try await load(reference, reader) }
                if let reference = after[slot] { right = try await load(reference, reader) }
                try await compare(left, right, level + 1, reader, into: &found)
            }
            return
        }
        var before: [StateEntry] = []
        var after: [StateEntry] = []
        if let old { try await collect(old, reader, into: &before) }
        if let new { try await collect(new, reader, into: &after) }
        var events: [StateKeyNID: EventNID] = [:]
        for entry in before { events[entry.key] = entry.event }
        for entry in after {
            let was = events.removeValue(forKey: entry.key)
            if was != entry.event { found.append(Difference(key: entry.key, old: was, new: entry.event)) }
        }
        for entry in before where events[entry.key] != nil {
            found.append(Difference(key: entry.key, old: entry.event, new: nil))
        }
    }

    // MARK: - Changing

    private typealias ChangeOfKey = (mixed: UInt64, key: StateKeyNID, event: EventNID?)

    private enum Outcome {
        /// The subtree is as it was.
        case kept
        case made(StateNode)
    }

    /// Applies changes to a subtree; nil if nothing is left of it.
    private func change(
        _ node: StateNode?, _ changes: ArraySlice<ChangeOfKey>, _ level: Int, _ reader: any Reader,
        _ writer: inout StateRowWriter
    ) async throws -> Outcome? {
        switch node {
        case nil:
            let entries = changes.compactMap { change in
                change.event.map { (change.mixed, StateEntry(key: change.key, event: $0)) }
            }
            return try build(entries[...], level, &writer)
        case .bucket(let entries):
            var merged: [StateKeyNID: EventNID] = [:]
            for entry in entries { merged[entry.key] = entry.event }
            var same = true
            for change in changes where merged[change.key] != change.event {
                same = false
                merged[change.key] = change.event
            }
            if same { return .kept }
            let sorted = merged.map { (Self.mix($0.key), StateEntry(key: $0.key, event: $0.value)) }.sorted {
                $0.0 < $1.0
            }
            return try build(sorted[...], level, &writer)
        case .branch(var children):
            var differs = false
            for group in Self.groups(changes, level, by: \.mixed) {
                let slot = group.slot
                var child: StateNode?
                if let reference = children[slot] { child = try await load(reference, reader) }
                switch try await change(child, group.items, level + 1, reader, &writer) {
                case .kept: break
                case nil:
                    differs = differs || children[slot] != nil
                    children[slot] = nil
                case .made(let node):
                    differs = true
                    children[slot] = writer.add(node)
                }
            }
            if !differs { return .kept }
            // A branch whose entries fit into a bucket becomes one, so that the shape depends on the content alone.
            // Only a removal can make that so.
            if changes.contains(where: { $0.event == nil }), let few = try await fewEntries(children, reader, writer) {
                return try build(few.map { (Self.mix($0.key), $0) }.sorted { $0.0 < $1.0 }[...], level, &writer)
            }
            return .made(.branch(children))
        }
    }

    /// Makes a subtree of sorted entries; nil if there are none.
    private func build(
        _ entries: ArraySlice<(UInt64, StateEntry)>, _ level: Int, _ writer: inout StateRowWriter
    ) throws -> Outcome? {
        if entries.isEmpty { return nil }
        if entries.count <= Self.bucketSize || level == 16 { return .made(.bucket(entries.map(\.1))) }
        var children = [StateReference?](repeating: nil, count: 16)
        for group in Self.groups(entries, level, by: \.0) {
            if case .made(let node)? = try build(group.items, level + 1, &writer) {
                children[group.slot] = writer.add(node)
            }
        }
        return .made(.branch(children))
    }

    /// The entries below a branch if they fit into a bucket. Looks at no more nodes than could hold so few.
    private func fewEntries(
        _ children: [StateReference?], _ reader: any Reader, _ writer: StateRowWriter
    ) async throws -> [StateEntry]? {
        var found: [StateEntry] = []
        for case let child? in children {
            var node = writer.node(child)
            if node == nil { node = try await load(child, reader) }
            // A branch below holds more than a bucket's worth by itself.
            guard case .bucket(let entries)? = node else { return nil }
            found += entries
            if found.count > Self.bucketSize { return nil }
        }
        return found
    }

    private static func groups<Item>(
        _ items: ArraySlice<Item>, _ level: Int, by mixed: (Item) -> UInt64
    ) -> [(slot: Int, items: ArraySlice<Item>)] {
        var groups: [(Int, ArraySlice<Item>)] = []
        var start = items.startIndex
        while start < items.endIndex {
            let slot = slot(mixed(items[start]), level)
            var end = items.index(after: start)
            while end < items.endIndex, self.slot(mixed(items[end]), level) == slot { end += 1 }
            groups.append((slot, items[start..<end]))
            start = end
        }
        return groups
    }
}

/// Collects new nodes into rows.
struct StateRowWriter {
    private(set) var finished: [(number: Int64, row: StateRow)] = []
    private var nodes: [StateNode] = []
    private var number: Int64

    init(nextRow: Int64) { number = nextRow }

    /// Adds a node behind all that it refers to.
    @discardableResult
    mutating func add(_ node: StateNode) -> StateReference {
        if nodes.count == StateTree.nodesPerRow { endRow() }
        nodes.append(node)
        return StateReference(row: number, index: nodes.count - 1)
    }

    mutating func endRow() {
        finished.append((number, StateRow(nodes: nodes)))
        nodes = []
        number += 1
    }

    /// A node that was added, if the reference is to one.
    func node(_ reference: StateReference) -> StateNode? {
        if reference.row == number { return nodes[reference.index] }
        return finished.first { $0.number == reference.row }?.row.nodes[reference.index]
    }
}
