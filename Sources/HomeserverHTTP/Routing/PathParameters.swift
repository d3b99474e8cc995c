/// The parameters of a path, decoded exactly once.
public struct PathParameters: Sendable {
    private var values: [(name: String, value: String)] = []
    private var known: Set<String> = []

    public init() {}

    /// For tests of handlers without a router.
    public init(_ values: KeyValuePairs<String, String>) {
        self.values = values.map { ($0.key, $0.value) }
        known = Set(values.map(\.key))
    }

    /// Takes the parameters of a route out of the raw path.
    ///
    /// - Returns: nil when one of them isn't valid percent-encoding of UTF-8.
    init?(_ route: RouteTree.Route, _ segments: [RouteTree.Segment], in path: String) {
        known = route.endpoint.parameterNames
        guard !route.captures.isEmpty else { return }
        values.reserveCapacity(route.captures.count)
        let bytes = path.utf8
        for capture in route.captures {
            let segment = segments[capture.segment]
            let start = bytes.index(bytes.startIndex, offsetBy: segment.start)
            let text = bytes[start..<bytes.index(start, offsetBy: segment.end - segment.start)]
            if segment.isEncoded {
                guard let value = PercentDecoding.decode(text) else { return nil }
                values.append((capture.name, value))
            } else {
                values.append((capture.name, String(Substring(text))))
            }
        }
    }

    /// The parameter's text; empty when the endpoint has other paths that name it and this one doesn't.
    ///
    /// Asking for a name that no path of the endpoint has is a bug in the handler and stops the program.
    public subscript(name: String) -> String {
        if let found = values.first(where: { $0.name == name }) { return found.value }
        precondition(known.contains(name), "no path of this endpoint has the parameter “\(name)”")
        return ""
    }
}
