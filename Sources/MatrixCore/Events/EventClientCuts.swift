extension Event {
    /// Top-level members that servers need and clients don't get (Client-Server API, Room event format).
    private static let serverFields = [
        "auth_events", "prev_events", "hashes", "signatures", "depth", "unsigned", "origin", "prev_state", "event_id",
    ]

    /// The ranges of ``json`` to leave out, commas included, so that the rest is the event as clients get it.
    ///
    /// Ascending, not touching one another. What remains begins with `{`, ends with `}`, and members can be added before the
    /// final `}` (with a comma, unless nothing remains). `event_id` is always cut: the caller adds it, `unsigned`, and
    /// for create events of room version 12 `room_id`.
    public var clientCuts: [Range<Int>] { Self.clientCuts(of: root) }

    static func clientCuts(of root: JSONView) -> [Range<Int>] {
        var cuts: [Range<Int>] = []
        var members = root.members
        var previousEnd = root.range.lowerBound + 1
        var endOfLastKept: Int?
        while let (key, value) = members.nextViews() {
            let end = value.range.upperBound
            if Self.serverFields.contains(where: { key.isString($0) }) {
                // From behind the last comma up to behind the next one, or the closing bracket.
                let cutEnd = end + 1 < root.range.upperBound ? end + 1 : end
                if let last = cuts.last, last.upperBound == previousEnd {
                    cuts[cuts.count - 1] = last.lowerBound..<cutEnd
                } else {
                    cuts.append(previousEnd..<cutEnd)
                }
            } else {
                endOfLastKept = end
            }
            previousEnd = end + 1
        }
        // Nothing is kept behind the last cut: the comma in front of it goes as well.
        if let last = cuts.last, last.upperBound == root.range.upperBound - 1, let endOfLastKept {
            cuts[cuts.count - 1] = endOfLastKept..<last.upperBound
        }
        return cuts
    }

    /// The event as clients get it, with `event_id` and `room_id` but without `unsigned`.
    public func clientJSON() -> [UInt8] {
        var output: [UInt8] = []
        output.reserveCapacity(json.count)
        var position = 0
        for cut in clientCuts {
            output.append(contentsOf: json[position..<cut.lowerBound])
            position = cut.upperBound
        }
        output.append(contentsOf: json[position..<json.count - 1])
        var writer = JSONWriter()
        writer.key(plain: "event_id")
        writer.string(eventID.string)
        if root["room_id"] == nil {
            writer.key(plain: "room_id")
            writer.string(roomID.string)
        }
        if output.count > 1 { output.append(0x2C) }
        output.append(contentsOf: writer.bytes)
        output.append(0x7D)
        return output
    }
}
