import Database
import MatrixCore

/// Which state of a room a client wants (MSC4186, `RequiredStateRequest`), as the union of what several rules ask for.
struct RequiredState: Sendable, Hashable {
    /// A pattern of state keys; nil stands for all.
    struct Element: Sendable, Hashable {
        var type: ByteString?
        var key: ByteString?

        func matches(_ state: StateKey) -> Bool {
            (type.map { $0 == ByteString(state.type) } ?? true) && (key.map { $0 == ByteString(state.key) } ?? true)
        }
    }

    /// What one rule asks for.
    struct Rule: Sendable, Hashable {
        var include: [Element] = []
        var exclude: [Element] = []
        /// Whether of the members only those are wanted whom the timeline shows.
        var lazyMembers = false

        func matches(_ state: StateKey) -> Bool {
            // Patterns for all types don't bring all members where these are loaded lazily.
            let isMember = lazyMembers && ByteString(state.type) == RequiredState.member
            return include.contains { $0.matches(state) && !(isMember && $0.type == nil) }
                && !exclude.contains { $0.matches(state) }
        }

        var matchesAllMembers: Bool {
            include.contains {
                $0.key == nil && ($0.type == RequiredState.member || $0.type == nil && !lazyMembers)
            }
        }
    }

    var rules: [Rule]

    static let member: ByteString = "m.room.member"
    /// Elements of one rule.
    private static let most = 500

    func matches(_ state: StateKey) -> Bool { rules.contains { $0.matches(state) } }

    /// MSC4186, "Combining room configs".
    var lazyMembers: Bool { rules.contains(where: \.lazyMembers) && !matchesAllMembers }
    var matchesAllMembers: Bool { rules.contains(where: \.matchesAllMembers) }

    /// The keys that are asked for by name.
    var namedKeys: Set<StateKey> {
        var keys: Set<StateKey> = []
        for element in rules.flatMap(\.include) {
            guard let key = element.key else { continue }
            keys.insert(StateKey((element.type ?? Self.member).string, key.string))
        }
        return keys
    }

    /// Whether keys are asked for that aren't named, besides those of members.
    var hasPatterns: Bool {
        rules.contains { $0.include.contains { $0.type == nil || $0.key == nil && $0.type != Self.member } }
    }

    init(rules: [Rule]) {
        var unique: [Rule] = []
        for rule in rules where !unique.contains(rule) { unique.append(rule) }
        self.rules = unique
    }

    // MARK: - Parsing

    /// Reads `required_state`: as the proposal has it now, an object; or as clients send it, pairs of type and state key
    /// with `*` for all, `$ME` for the user, and `$LAZY`.
    ///
    /// - Throws: `M_BAD_JSON` if it is neither.
    init(_ json: JSONView?, for user: UserID) throws {
        guard let json, !json.isNull else {
            self.init(rules: [Rule()])
            return
        }
        if json.isArray {
            self.init(rules: [try Self.pairs(json, user)])
        } else {
            guard json.isObject else { throw MatrixError.badJSON("“required_state” must be an object or an array.") }
            self.init(rules: [
                Rule(
                    include: try Self.elements(json, "include"), exclude: try Self.elements(json, "exclude"),
                    lazyMembers: try json.optionalBool("lazy_members") ?? false)
            ])
        }
    }

    private static func elements(_ json: JSONView, _ name: String) throws -> [Element] {
        let elements = try json.optionalArray(name) ?? []
        guard elements.count <= most else { throw tooMany }
        return try elements.map { element in
            guard element.isObject else { throw MatrixError.badJSON("“\(name)” must hold objects.") }
            return Element(
                type: try element.optionalString("type").map { ByteString($0) },
                key: try element.optionalString("state_key").map { ByteString($0) })
        }
    }

    private static func pairs(_ json: JSONView, _ user: UserID) throws -> Rule {
        guard json.count <= most else { throw tooMany }
        var rule = Rule()
        for pair in json.elements {
            let parts = pair.elements.compactMap(\.string)
            guard pair.isArray, pair.count == 2, parts.count == 2 else {
                throw MatrixError.badJSON("“required_state” must hold pairs of a type and a state key.")
            }
            if parts[0] == member.string, parts[1] == "$LAZY" {
                rule.lazyMembers = true
                continue
            }
            let key = parts[1] == "$ME" ? user.string : parts[1]
            rule.include.append(
                Element(
                    type: parts[0] == "*" ? nil : ByteString(parts[0]), key: parts[1] == "*" ? nil : ByteString(key)))
        }
        return rule
    }

    private static let tooMany = MatrixError.invalidParam("“required_state” may have \(most) elements.")

    // MARK: - Keeping

    /// The text by which a connection remembers it.
    var json: JSON {
        func elements(_ list: [Element]) -> JSON {
            .array(
                list.map { [$0.type.map { .string($0.string) } ?? .null, $0.key.map { .string($0.string) } ?? .null] })
        }
        return .array(
            rules.map { ["i": elements($0.include), "e": elements($0.exclude), "l": .bool($0.lazyMembers)] })
    }

    init(kept json: JSONView) {
        func elements(_ list: JSONView?) -> [Element] {
            list?.elements.map { element in
                let parts = Array(element.elements)
                return Element(
                    type: (parts.first?.string).map { ByteString($0) }, key: (parts.last?.string).map { ByteString($0) }
                )
            } ?? []
        }
        rules = json.elements.map {
            Rule(include: elements($0["i"]), exclude: elements($0["e"]), lazyMembers: $0["l"]?.bool ?? false)
        }
    }
}
