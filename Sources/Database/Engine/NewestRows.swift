/// The newest rows of a kind, newest first.
public struct NewestRows<Row: Sendable>: Sendable {
    public let rows: [Row]
    /// All rows above this position are among them.
    private let floor: Int64

    init(_ rows: [Row], limit: Int, position: (Row) -> Int64) {
        self.rows = rows
        floor = rows.count < limit ? .min : rows.last.map(position) ?? .min
    }

    /// Whether they are all there are.
    public var isWhole: Bool { floor == .min }

    /// Whether all that are above a position are among them.
    public func goesBack(to position: Int64) -> Bool { position >= floor }
}
