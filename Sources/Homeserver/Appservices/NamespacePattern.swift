#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// The regular expression of a namespace (Application Service API, "Registration"): a POSIX extended one, as the specification
/// has it. It must match from the beginning; where it ends, the rest of the identifier may be anything.
///
/// Whoever runs the server writes them, so that no stranger decides how long they take; `regexec` runs an automaton.
public final class NamespacePattern: Sendable, Hashable {
    public let text: String
    // `regexec` only reads it.
    nonisolated(unsafe) private let compiled: UnsafeMutablePointer<regex_t>

    /// nil if it is no regular expression.
    public init?(_ text: String) {
        self.text = text
        // Two habits from elsewhere that POSIX doesn't know, and that mean what they say there.
        let pattern = text.replacing("\\d", with: "[0-9]").replacing("(?:", with: "(")
        let compiled = UnsafeMutablePointer<regex_t>.allocate(capacity: 1)
        guard text.utf8.count <= 4_096, !text.utf8.contains(0),
            regcomp(compiled, "^(\(pattern))", REG_EXTENDED | REG_NOSUB) == 0
        else {
            compiled.deallocate()
            return nil
        }
        self.compiled = compiled
    }

    deinit {
        regfree(compiled)
        compiled.deallocate()
    }

    public func matches(_ identifier: String) -> Bool {
        !identifier.utf8.contains(0) && regexec(compiled, identifier, 0, nil, 0) == 0
    }

    public static func == (left: NamespacePattern, right: NamespacePattern) -> Bool {
        left.text.hasSameBytes(as: right.text)
    }

    public func hash(into hasher: inout Hasher) { hasher.combine(text) }
}
