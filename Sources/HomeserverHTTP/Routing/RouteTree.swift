import NIOHTTP1

/// Finds the endpoint of a path, one segment after the other, by bytes.
///
/// Paths are compared as bytes and not as `String`s, whose equality is Unicode's canonical equivalence: two different
/// paths must never be one. A literal wins over a parameter at the same place, and the search comes back to the parameter
/// when the literal leads nowhere. It visits at most two nodes for each segment of a pattern, so a stranger's path can't
/// make it slow.
struct RouteTree: Sendable {
    /// One way into an endpoint: which of its patterns, and where in the path its parameters stand.
    struct Route: Sendable {
        let endpoint: Endpoint
        let pattern: PathPattern
        let captures: [(name: String, segment: Int)]
    }

    private struct Node: Sendable {
        /// Sorted by bytes, for binary search.
        var literals: [(text: [UInt8], node: Int)] = []
        var parameter: Int?
        var routes: [(method: HTTPMethod, route: Route)] = []
    }

    /// A path and what it leads to.
    struct Match: Sendable {
        let routes: [(method: HTTPMethod, route: Route)]
        let segments: [Segment]
    }

    /// A part of the path between slashes: the range of its bytes, and whether it contains a percent sign.
    struct Segment: Sendable {
        var start: Int
        var end: Int
        var isEncoded = false
    }

    /// The most segments of a path that are looked at; longer paths lead nowhere.
    private static let maximumSegments = 24

    private var nodes: [Node] = [Node()]

    init(_ endpoints: [Endpoint]) {
        for endpoint in endpoints {
            for pattern in endpoint.patterns {
                insert(endpoint, pattern)
            }
        }
    }

    private mutating func insert(_ endpoint: Endpoint, _ pattern: PathPattern) {
        var ends = [0]
        var captures: [(name: String, segment: Int)] = []
        for (index, segment) in pattern.segments.enumerated() {
            switch segment {
            case .literal(let text):
                ends = ends.map { literal(text, under: $0) }
            case .choice(let name, let texts):
                captures.append((name, index))
                ends = ends.flatMap { end in texts.map { literal($0, under: end) } }
            case .parameter(let name):
                captures.append((name, index))
                ends = ends.map { parameter(under: $0) }
            }
        }
        for end in ends {
            precondition(
                !nodes[end].routes.contains { $0.method == endpoint.method },
                "two endpoints answer \(endpoint.method) \(pattern)")
            nodes[end].routes.append(
                (endpoint.method, Route(endpoint: endpoint, pattern: pattern, captures: captures)))
        }
    }

    private mutating func literal(_ text: String, under parent: Int) -> Int {
        let bytes = Array(text.utf8)
        if let existing = nodes[parent].literals.first(where: { $0.text == bytes }) { return existing.node }
        nodes.append(Node())
        let place = nodes[parent].literals.firstIndex { bytes.lexicographicallyPrecedes($0.text) }
        nodes[parent].literals.insert((bytes, nodes.count - 1), at: place ?? nodes[parent].literals.endIndex)
        return nodes.count - 1
    }

    private mutating func parameter(under parent: Int) -> Int {
        if let existing = nodes[parent].parameter { return existing }
        nodes.append(Node())
        nodes[parent].parameter = nodes.count - 1
        return nodes.count - 1
    }

    /// The routes at a raw, undecoded path; nil when there are none.
    func match(_ path: String) -> Match? {
        var path = path
        return path.withUTF8 { bytes in
            guard let segments = Self.split(bytes), let node = find(bytes, segments, 0, from: 0) else { return nil }
            return Match(routes: nodes[node].routes, segments: segments)
        }
    }

    private static func split(_ bytes: UnsafeBufferPointer<UInt8>) -> [Segment]? {
        guard bytes.first == UInt8(ascii: "/") else { return nil }
        var segments: [Segment] = []
        segments.reserveCapacity(10)
        var current = Segment(start: 1, end: 1)
        for index in 1..<bytes.count {
            switch bytes[index] {
            case UInt8(ascii: "/"):
                current.end = index
                segments.append(current)
                guard segments.count < maximumSegments else { return nil }
                current = Segment(start: index + 1, end: index + 1)
            case UInt8(ascii: "%"): current.isEncoded = true
            default: break
            }
        }
        current.end = bytes.count
        segments.append(current)
        return segments
    }

    private func find(
        _ bytes: UnsafeBufferPointer<UInt8>, _ segments: [Segment], _ index: Int, from node: Int
    ) -> Int? {
        guard index < segments.count else { return nodes[node].routes.isEmpty ? nil : node }
        let segment = segments[index]
        let text = UnsafeBufferPointer(rebasing: bytes[segment.start..<segment.end])
        var child: Int?
        if !segment.isEncoded {
            child = literal(text, in: nodes[node].literals)
        } else if var decoded = PercentDecoding.decode(text) {
            child = decoded.withUTF8 { literal($0, in: nodes[node].literals) }
        }
        if let child, let found = find(bytes, segments, index + 1, from: child) { return found }
        guard let parameter = nodes[node].parameter, !text.isEmpty || index == segments.count - 1 else { return nil }
        return find(bytes, segments, index + 1, from: parameter)
    }

    private func literal(_ text: UnsafeBufferPointer<UInt8>, in literals: [(text: [UInt8], node: Int)]) -> Int? {
        var low = 0
        var high = literals.count
        while low < high {
            let middle = (low + high) / 2
            if literals[middle].text.elementsEqual(text) { return literals[middle].node }
            if literals[middle].text.lexicographicallyPrecedes(text) { low = middle + 1 } else { high = middle }
        }
        return nil
    }
}
