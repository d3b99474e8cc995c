import MatrixCore

/// What is fed with arbitrary bytes, and what has to hold whatever they are.
///
/// A violation traps, which is what a fuzzer looks for. The same functions run under libFuzzer (`scripts/fuzz`) and, with
/// a fixed number of mutations of the committed corpus, in the tests.
public enum FuzzTarget: String, CaseIterable, Sendable {
    case json
    case identifiers
    case events
    case globs

    public func run(_ bytes: [UInt8]) {
        switch self {
        case .json: Self.fuzzJSON(bytes)
        case .identifiers: Self.fuzzIdentifiers(bytes)
        case .events: Self.fuzzEvents(bytes)
        case .globs: Self.fuzzGlobs(bytes)
        }
    }

    private static func fuzzJSON(_ bytes: [UInt8]) {
        let strict = try? JSONDocument(parsing: bytes)
        let lenient = try? JSONDocument(parsing: bytes, limits: .envelope)
        // Strict is a part of lenient.
        precondition(strict == nil || lenient != nil)
        guard let document = strict else { return }
        precondition(String(validating: bytes, as: UTF8.self) != nil)
        visit(document.root)

        // Encoding what was read and reading it again gives the same value.
        let value = document.root.json
        guard let again = try? JSONDocument(parsing: value.encoded()) else {
            preconditionFailure("cannot read what we wrote")
        }
        precondition(again.root.json == value)

        // The canonical form is a fixed point.
        if let canonical = try? document.root.canonical() {
            let limits = JSONLimits(numbers: .canonicalOnly)
            guard let reparsed = try? JSONDocument(parsing: canonical, limits: limits) else {
                preconditionFailure("canonical JSON is JSON")
            }
            precondition((try? reparsed.root.canonical()) == canonical)
        }
    }

    /// Touches every value and checks that the tape's ranges nest and ascend.
    private static func visit(_ view: JSONView) {
        var position = view.range.lowerBound
        var count = 0
        for element in view.elements {
            precondition(element.range.lowerBound > position && element.range.upperBound < view.range.upperBound)
            position = element.range.upperBound - 1
            count += 1
            visit(element)
        }
        for (key, member) in view.members {
            precondition(member.range.lowerBound > position && member.range.upperBound < view.range.upperBound)
            position = member.range.upperBound - 1
            count += 1
            precondition(view[key]?.range == member.range)
            visit(member)
        }
        precondition(count == view.count)
        _ = (view.string, view.integer, view.double, view.bool)
    }

    private static func fuzzIdentifiers(_ bytes: [UInt8]) {
        let text = String(decoding: bytes, as: UTF8.self)
        if let user = UserID(text) {
            precondition(text.utf8.count <= 255 && ServerName(user.server.string) != nil)
            precondition(ByteString("@\(user.localpart):\(user.server)") == ByteString(text))
        }
        if let server = ServerName(text) {
            precondition(ServerName(server.host)?.host == server.host)
            _ = (server.port, server.isIPLiteral)
        }
        if let room = RoomID(text) { precondition((room.server == nil) == (room.createEventID != nil)) }
        if let alias = RoomAlias(text) {
            precondition(ByteString("#\(alias.localpart):\(alias.server)") == ByteString(text))
        }
        if let event = EventID(text) { _ = event.server }
        _ = (DeviceID(text), RoomVersion.named(text), RoomVersion.isValidIdentifier(text))
        if let uri = MatrixURI(text) {
            precondition(MatrixURI(uri.matrixScheme) == uri)
            var withoutAction = uri
            withoutAction.action = nil
            precondition(MatrixURI(uri.matrixTo) == withoutAction)
        }
        if let decoded = Base64.decode(text) {
            precondition(Base64.decode(Base64.encode(decoded)) == decoded)
        }
    }

    /// The first byte chooses the room version.
    private static func fuzzEvents(_ bytes: [UInt8]) {
        guard let first = bytes.first else { return }
        let version = RoomVersion.all[Int(first) % RoomVersion.all.count]
        guard let event = try? Event(receiving: Array(bytes.dropFirst()), version: version) else { return }
        precondition(event.json.count <= Event.maxBytes)
        guard let again = try? Event(receiving: event.json, version: version) else {
            preconditionFailure("not a fixed point")
        }
        precondition(again.eventID == event.eventID && again.json == event.json)
        let redacted = event.redacted()
        precondition(redacted.redacted().json == redacted.json)
        if case .referenceHash = version.rules.eventIDs {
            precondition(redacted.referenceHash() == event.referenceHash())
        }
        precondition((try? JSONDocument(parsing: event.clientJSON())) != nil)
        _ = event.contentHashMatches()
        _ = SignatureChecking.verdict(on: event) { _, id in
            VerifyKey(keyID: id, publicKey: Array(repeating: 1, count: 32))
        }
        // The event as the state that decides about itself: nonsense, which must not trap.
        _ = try? Authorization.check(event) { _ in event }
        _ = try? Authorization.checkAuthEvents(event, authEvents: [event, event])
        _ = PowerLevels(event: event, create: event).level(of: event.sender)
        _ = ServerACL(event: event).allows(event.sender.server)
        _ = PushRuleSet(event.content.json).matchingRule(
            for: event,
            in: PushContext(memberCount: 2, displayName: "x", powerLevels: PowerLevels(event: event, create: event)))
    }

    /// Pattern and text, divided by the first line feed, against a table of all their beginnings.
    private static func fuzzGlobs(_ bytes: [UInt8]) {
        let parts = bytes.split(separator: 0x0A, maxSplits: 1, omittingEmptySubsequences: false)
        guard parts.count == 2 else { return }
        let pattern = String(decoding: parts[0], as: UTF8.self)
        let text = String(decoding: parts[1], as: UTF8.self)
        let glob = Glob(pattern)
        let isMatch = glob.matches(text)
        let inWords = glob.matches(text, .words)
        // The whole text lies between two boundaries.
        precondition(!isMatch || inWords)
        precondition(!Glob(literal: text).matches(text) == (text.unicodeScalars.count > Glob.maxLength))
        let p = Array(pattern.lowercased().unicodeScalars)
        let t = Array(text.lowercased().unicodeScalars)
        guard p.count <= 200, t.count <= 200 else { return }
        var row = [true] + Array(repeating: false, count: t.count)
        for character in p {
            var next = [character == "*" && row[0]] + Array(repeating: false, count: t.count)
            for index in t.indices {
                next[index + 1] =
                    character == "*"
                    ? row[index + 1] || next[index] : row[index] && (character == "?" || character == t[index])
            }
            row = next
        }
        precondition(row[t.count] == isMatch)
    }
}
