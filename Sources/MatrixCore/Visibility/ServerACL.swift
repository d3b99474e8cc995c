/// Which servers may take part in a room (Client-Server API, `m.room.server_acl`).
///
/// Compiled once for each version of the event and asked for every request of another server.
public struct ServerACL: Sendable {
    private let allowsIPLiterals: Bool
    private let allowed: [Glob]
    private let denied: [Glob]
    /// Nil content: there is no such event, everybody is allowed.
    private let isPresent: Bool

    /// - Parameter event: The room's `m.room.server_acl` event, nil if there is none.
    public init(event: Event?) { self.init(content: event?.content) }

    init(content: JSONView?) {
        isPresent = content != nil
        allowsIPLiterals = content?["allow_ip_literals"]?.bool ?? true
        allowed = Self.globs(content?["allow"])
        denied = Self.globs(content?["deny"])
    }

    /// Entries that are no strings are ignored. Event size bounds their number.
    private static func globs(_ list: JSONView?) -> [Glob] {
        guard let list else { return [] }
        return list.elements.compactMap { $0.string.map { Glob($0) } }
    }

    /// About what it takes in memory.
    public var compiledBytes: Int { (allowed + denied).reduce(128) { $0 + $1.compiledBytes } }

    /// The rules in the order of the text; the port does not count.
    public func allows(_ server: ServerName) -> Bool {
        // 1. No event.
        guard isPresent else { return true }
        // 2. IP literals.
        if !allowsIPLiterals, server.isIPLiteral { return false }
        let host = server.host
        // 3. Denied.
        if denied.contains(where: { $0.matches(host) }) { return false }
        // 4. Allowed; 5. everyone else is not.
        return allowed.contains { $0.matches(host) }
    }
}
