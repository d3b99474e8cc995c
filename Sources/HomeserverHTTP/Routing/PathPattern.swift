/// A path with named parameters: `/_matrix/client/{version:v3|r0}/rooms/{roomId}/send/{eventType}/{txnId}`.
///
/// A segment is a literal, a parameter `{name}` that takes any text, or a choice `{name:one|two}`. A parameter at the end
/// also takes the empty text, so `…/state/m.room.name/` has an empty `{stateKey}`; in the middle it doesn't.
public struct PathPattern: Sendable, Hashable, ExpressibleByStringLiteral, CustomStringConvertible {
    enum Segment: Sendable, Hashable {
        case literal(String)
        case parameter(String)
        case choice(String, [String])
    }

    public let description: String
    let segments: [Segment]

    /// A pattern is part of the program: a malformed one is a bug and stops it.
    public init(_ pattern: String) {
        precondition(pattern.hasPrefix("/"), "the path pattern “\(pattern)” doesn't begin with a slash")
        description = pattern
        segments = pattern.dropFirst().split(separator: "/", omittingEmptySubsequences: false).map { text in
            guard text.hasPrefix("{") else {
                precondition(!text.contains { "{}%?".contains($0) }, "“\(text)” in “\(pattern)” is no literal")
                return .literal(String(text))
            }
            precondition(text.hasSuffix("}"), "“\(text)” in “\(pattern)” lacks its closing brace")
            let parts = text.dropFirst().dropLast().split(separator: ":", maxSplits: 1)
            precondition(!parts.isEmpty, "a parameter in “\(pattern)” has no name")
            guard parts.count == 2 else { return .parameter(String(parts[0])) }
            return .choice(String(parts[0]), parts[1].split(separator: "|").map(String.init))
        }
    }

    public init(stringLiteral value: String) { self.init(value) }

    var parameterNames: [String] {
        segments.compactMap {
            switch $0 {
            case .literal: nil
            case .parameter(let name), .choice(let name, _): name
            }
        }
    }
}
