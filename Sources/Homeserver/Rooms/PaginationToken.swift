import Database

/// A place in a room's order as `/messages` and `/sync` hand it out: `t1-<depth>-<position>`. Clients treat it as opaque.
struct PaginationToken: Sendable {
    let place: Database.OrderedPlace

    init(_ place: Database.OrderedPlace) { self.place = place }

    var text: String { "t1-\(place.depth)-\(place.position < 0 ? "m" : "")\(place.position.magnitude)" }

    init?(_ text: String) {
        let parts = text.utf8.split(separator: UInt8(ascii: "-"), omittingEmptySubsequences: false).map {
            Substring($0)
        }
        guard parts.count == 3, parts[0] == "t1", let depth = Int64(parts[1]), depth >= 0 else { return nil }
        let isNegative = parts[2].hasPrefix("m")
        guard let magnitude = UInt64(isNegative ? parts[2].dropFirst() : parts[2]),
            magnitude <= (isNegative ? Int64.min.magnitude : Int64.max.magnitude)
        else { return nil }
        let position = Int64(truncatingIfNeeded: isNegative ? 0 &- magnitude : magnitude)
        place = Database.OrderedPlace(depth: depth, position: position)
    }

    /// The commit position that a token of either kind stands for.
    ///
    /// - Throws: `M_INVALID_PARAM` if it is neither.
    static func position(_ text: String) throws -> Int64 {
        if let token = PaginationToken(text) { return token.place.position }
        if let position = SyncToken.position(of: text) { return position }
        throw MatrixError.invalidParam("This token is not one that this server gave out.")
    }
}
