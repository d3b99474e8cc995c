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

    /// The event as redaction leaves it (Room Versions, Redactions), less the top-level members called one of `omitting`.
    static func redacted(
        _ event: JSONView, type: String, rules: RedactionRules, omitting: [String] = []
    ) -> [UInt8] {
        var output: [UInt8] = []
        output.reserveCapacity(event.range.count)
        output.append(0x7B)
        var isFirst = true
        var members = event.members
        while let (key, value) = members.nextViews() {
            guard rules.topLevel.contains(where: { key.isString($0) }), !omitting.contains(where: { key.isString($0) })
            else { continue }
            if !isFirst { output.append(0x2C) }
            isFirst = false
            output.append(contentsOf: key.raw)
            output.append(0x3A)
            if key.isString("content") {
                appendContent(value, type: type, rules: rules, to: &output)
            } else {
                output.append(contentsOf: value.raw)
            }
        }
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
        output.append(0x7B)
        var isFirst = true
        var members = content.members
        while let (key, value) = members.nextViews() {
            let isInvite = keepsSigned && key.isString("third_party_invite") && value.isObject
            guard isInvite || kept.contains(where: { key.isString($0) }) else { continue }
            if !isFirst { output.append(0x2C) }
            isFirst = false
            output.append(contentsOf: key.raw)
            output.append(0x3A)
            if isInvite {
                appendObject(value, to: &output) { $0.isString("signed") }
            } else {
                output.append(contentsOf: value.raw)
            }
        }
        output.append(0x7D)
    }

    private static func appendObject(_ object: JSONView, to output: inout [UInt8], where isKept: (JSONView) -> Bool) {
        output.append(0x7B)
        var isFirst = true
        var members = object.members
        while let (key, value) = members.nextViews() {
            guard isKept(key) else { continue }
            if !isFirst { output.append(0x2C) }
            isFirst = false
            output.append(contentsOf: key.raw)
            output.append(0x3A)
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
