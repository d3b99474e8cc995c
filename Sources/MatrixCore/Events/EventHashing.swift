/// Redaction, content hash and reference hash of an event that is given as canonical JSON.
///
/// Canonical members are sorted and stand as they must, so all three are made by copying slices.
enum EventHashing {
    /// Server-Server API, Calculating the content hash for an event.
    static func contentHash(_ event: JSONView) -> [UInt8] {
        var output: [UInt8] = []
        output.reserveCapacity(event.range.count)
        appendObject(event, to: &output) { key in
            !key.isString("unsigned") && !key.isString("signatures") && !key.isString("hashes")
        }
        return Hashing.sha256(output)
    }

    /// Server-Server API, Calculating the reference hash for an event.
    static func referenceHash(_ event: JSONView, type: String, rules: RedactionRules) -> [UInt8] {
        Hashing.sha256(redacted(event, type: type, rules: rules, omitting: ["signatures", "unsigned"]))
    }

    /// A member that an event doesn't have yet: its name, which needs no escapes, and its value as canonical JSON.
    typealias Addition = (name: String, value: [UInt8])

    /// The event with more members, each where it belongs in the order of keys.
    static func whole(_ event: JSONView, adding additions: [Addition]) -> [UInt8] {
        var output: [UInt8] = [0x7B]
        output.reserveCapacity(additions.reduce(event.range.count) { $0 + $1.name.utf8.count + $1.value.count + 4 })
        var rest = additions[...]
        var members = event.members
        while let (key, value) = members.nextViews() {
            while let next = rest.first, stands(next, before: key) { append(rest.removeFirst(), to: &output) }
            append(key, ofObjectAt: 0, to: &output)
            output.append(contentsOf: value.raw)
        }
        for next in rest { append(next, to: &output) }
        output.append(0x7D)
        return output
    }

    /// Writes a key of the object that begins at `start`.
    private static func append(_ key: JSONView, ofObjectAt start: Int, to output: inout [UInt8]) {
        if output.count > start + 1 { output.append(0x2C) }
        output.append(contentsOf: key.raw)
        output.append(0x3A)
    }

    private static func append(_ addition: Addition, to output: inout [UInt8]) {
        if output.count > 1 { output.append(0x2C) }
        output.append(0x22)
        output.append(contentsOf: addition.name.utf8)
        output.append(0x22)
        output.append(0x3A)
        output.append(contentsOf: addition.value)
    }

    /// By the bytes as they stand: what is escaped, quotes, backslashes and control characters, is less than any letter, and so is
    /// the backslash that it begins with.
    private static func stands(_ addition: Addition, before key: JSONView) -> Bool {
        addition.name.utf8.lexicographicallyPrecedes(key.raw.dropFirst().dropLast())
    }

    /// The event as redaction leaves it (Room Versions, Redactions), less the top-level members called one of `omitting`.
    ///
    /// - Parameter adding: a member that it doesn't have yet and that redaction keeps.
    static func redacted(
        _ event: JSONView, type: String, rules: RedactionRules, omitting: [String] = [], adding: Addition? = nil
    ) -> [UInt8] {
        var output: [UInt8] = []
        output.reserveCapacity(event.range.count)
        output.append(0x7B)
        var added = adding
        var members = event.members
        while let (key, value) = members.nextViews() {
            if let next = added, stands(next, before: key) {
                append(next, to: &output)
                added = nil
            }
            guard rules.topLevel.contains(where: { key.isString($0) }), !omitting.contains(where: { key.isString($0) })
            else { continue }
            append(key, ofObjectAt: 0, to: &output)
            if key.isString("content") {
                appendContent(value, type: type, rules: rules, to: &output)
            } else {
                output.append(contentsOf: value.raw)
            }
        }
        if let added { append(added, to: &output) }
        output.append(0x7D)
        return output
    }

    private static func appendContent(
        _ content: JSONView, type: String, rules: RedactionRules, to output: inout [UInt8]
    ) {
        if rules.wholeContent.contains(where: { $0.hasSameBytes(as: type) }) {
            output.append(contentsOf: content.raw)
            return
        }
        let kept = rules.content[ByteString(type)] ?? []
        let keepsSigned = rules.keepsSignedThirdPartyInvite && type.hasSameBytes(as: "m.room.member")
        let start = output.count
        output.append(0x7B)
        var members = content.members
        while let (key, value) = members.nextViews() {
            let isInvite = keepsSigned && key.isString("third_party_invite") && value.isObject
            guard isInvite || kept.contains(where: { key.isString($0) }) else { continue }
            append(key, ofObjectAt: start, to: &output)
            if isInvite {
                appendObject(value, to: &output) { $0.isString("signed") }
            } else {
                output.append(contentsOf: value.raw)
            }
        }
        output.append(0x7D)
    }

    private static func appendObject(_ object: JSONView, to output: inout [UInt8], where isKept: (JSONView) -> Bool) {
        let start = output.count
        output.append(0x7B)
        var members = object.members
        while let (key, value) = members.nextViews() {
            guard isKept(key) else { continue }
            append(key, ofObjectAt: start, to: &output)
            output.append(contentsOf: value.raw)
        }
        output.append(0x7D)
    }
}

extension Event {
    /// Whether the content hash is the one that the event carries. If not, only the redacted event may be used
    /// (Server-Server API, Validating hashes and signatures on received events).
    public func contentHashMatches() -> Bool {
        guard let text = root["hashes"]?["sha256"]?.string, let expected = Base64.decode(text) else { return false }
        return EventHashing.contentHash(root) == expected
    }

    /// The event as redaction leaves it: same ID, same place in the graph (Room Versions, Redactions).
    public func redacted() -> Event {
        let bytes = EventHashing.redacted(root, type: type, rules: version.rules.redaction)
        do throws(EventError) {
            return try Event(stored: bytes, eventID: eventID, version: version)
        } catch {
            // All fields that an event needs survive redaction.
            preconditionFailure("a redacted event is no event: \(error)")
        }
    }

    /// Server-Server API, Calculating the reference hash for an event.
    public func referenceHash() -> [UInt8] {
        EventHashing.referenceHash(root, type: type, rules: version.rules.redaction)
    }

    /// The bytes that signatures of this event cover: redacted, without `signatures`
    /// (Server-Server API, Adding hashes and signatures to outgoing events).
    func signedBytes() -> [UInt8] {
        EventHashing.redacted(
            root, type: type, rules: version.rules.redaction, omitting: ["signatures", "unsigned"])
    }
}
