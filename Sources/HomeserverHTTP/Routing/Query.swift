/// The parameters of a query string, in their order, decoded; a name may occur several times.
///
/// A parameter that isn't valid percent-encoding or UTF-8 counts as absent: endpoints then say which one they miss.
public struct Query: Sendable, Equatable {
    private struct Parameter: Sendable, Equatable {
        var name: String
        var value: String
    }

    private var parameters: [Parameter] = []

    /// The most parameters that are read; more than any endpoint has, and a bound on what a stranger can make us hold.
    private static let maximum = 256

    /// Parses what follows the question mark; `+` and `%20` are both a space.
    public init(_ raw: some StringProtocol = "") {
        guard !raw.isEmpty else { return }
        for pair in raw.utf8.split(separator: UInt8(ascii: "&"), maxSplits: Self.maximum).prefix(Self.maximum) {
            let equals = pair.firstIndex(of: UInt8(ascii: "="))
            guard
                let name = PercentDecoding.decode(pair[..<(equals ?? pair.endIndex)], plusIsSpace: true),
                let value = equals.map({ PercentDecoding.decode(pair[pair.index(after: $0)...], plusIsSpace: true) })
                    ?? ""
            else { continue }
            parameters.append(Parameter(name: name, value: value))
        }
    }

    /// The first value of the parameter; nil when it isn't there, empty when it has no value.
    public subscript(name: String) -> String? {
        parameters.first { $0.name == name }?.value
    }

    /// All values of the parameter, in their order.
    public func all(_ name: String) -> [String] {
        parameters.lazy.filter { $0.name == name }.map(\.value)
    }
}
