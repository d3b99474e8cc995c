/// Reads the fields of an event as the event format of its room version has them
/// (Room Versions, Event format of each version).
struct EventDecoder {
    let root: JSONView
    let rules: RoomVersionRules
    /// The bytes come from our own database: identifiers were checked before.
    let isTrusted: Bool

    static func parse(_ bytes: [UInt8], limits: JSONLimits) throws(EventError) -> JSONDocument {
        do {
            return try JSONDocument(parsing: bytes, limits: limits)
        } catch {
            throw .invalidJSON(error)
        }
    }

    func string(_ field: String) throws(EventError) -> String {
        guard let value = root[field] else { throw .missing(field: field) }
        guard let string = value.string else { throw .wrongType(field: field) }
        return string
    }

    /// Client-Server API, Size limits: `sender`, `room_id`, `state_key`, `type` and `event_id` have at most 255 bytes.
    func boundedString(_ field: String) throws(EventError) -> String {
        let string = try string(field)
        guard string.utf8.count <= IdentifierGrammar.maxLength else { throw .fieldTooLong(field: field) }
        return string
    }

    func optionalBoundedString(_ field: String) throws(EventError) -> String? {
        root[field] == nil ? nil : try boundedString(field)
    }

    func object(_ field: String) throws(EventError) -> JSONView {
        guard let value = root[field] else { throw .missing(field: field) }
        guard value.isObject else { throw .wrongType(field: field) }
        return value
    }

    /// Room versions 1 to 5 know the whole 64-bit range; later ones have been held to canonical JSON before.
    func integer(_ field: String) throws(EventError) -> Int64 {
        guard let value = root[field] else { throw .missing(field: field) }
        guard let integer = value.int64 else { throw .wrongType(field: field) }
        return integer
    }

    func depth() throws(EventError) -> Int64 {
        let depth = try integer("depth")
        guard depth >= 0 else { throw .wrongType(field: "depth") }
        return depth
    }

    func sender() throws(EventError) -> UserID {
        let string = try boundedString("sender")
        if isTrusted { return UserID(unchecked: string) }
        guard let sender = UserID(string) else { throw .invalidIdentifier(field: "sender") }
        return sender
    }

    func roomID(type: String, eventID: EventID) throws(EventError) -> RoomID {
        if rules.roomIDs == .createEventHash, type.hasSameBytes(as: "m.room.create") {
            // A `room_id` that stands here nevertheless is for rule 1.2 of the authorisation rules to refuse.
            return RoomID(create: eventID)
        }
        let string = try boundedString("room_id")
        if isTrusted { return RoomID(unchecked: string) }
        guard let roomID = RoomID(string), (roomID.server == nil) == (rules.roomIDs == .createEventHash) else {
            throw .invalidIdentifier(field: "room_id")
        }
        return roomID
    }

    func eventID(type: String) throws(EventError) -> EventID {
        switch rules.eventIDs {
        case .assigned:
            let string = try boundedString("event_id")
            guard let eventID = EventID(string), eventID.server != nil else {
                throw .invalidIdentifier(field: "event_id")
            }
            return eventID
        case .referenceHash(let alphabet):
            let hash = EventHashing.referenceHash(root, type: type, rules: rules.redaction)
            return EventID(unchecked: "$" + Base64.encode(hash, alphabet: alphabet))
        }
    }

    /// Event IDs, or in room versions 1 and 2 pairs of an event ID and its hashes.
    func references(_ field: String, limit: Int) throws(EventError) -> [EventID] {
        guard let list = root[field] else { throw .missing(field: field) }
        guard list.isArray else { throw .wrongType(field: field) }
        guard isTrusted || list.count <= limit else { throw .tooMany(field: field, limit: limit) }
        var references: [EventID] = []
        references.reserveCapacity(list.count)
        for entry in list.elements {
            var id = entry
            // Before a server is in a room it stores invitations by the version that is claimed: those stay readable.
            if rules.eventIDs == .assigned ? !isTrusted || entry.isArray : isTrusted && entry.isArray {
                var pair = entry.elements
                guard entry.count == 2, let first = pair.next(), let hashes = pair.next(), hashes.isObject else {
                    throw .wrongType(field: field)
                }
                id = first
            }
            guard let string = id.string else { throw .wrongType(field: field) }
            references.append(try reference(string, field))
        }
        return references
    }

    private func reference(_ string: String, _ field: String) throws(EventError) -> EventID {
        if isTrusted { return EventID(unchecked: string) }
        guard let eventID = EventID(string) else { throw .invalidIdentifier(field: field) }
        switch rules.eventIDs {
        case .assigned:
            guard eventID.server != nil else { throw .invalidIdentifier(field: field) }
        case .referenceHash(let alphabet):
            guard EventID.isReferenceHash(string.utf8.dropFirst(), urlSafe: alphabet == .urlSafe) else {
                throw .invalidIdentifier(field: field)
            }
        }
        return eventID
    }

    func checkHashesAndSignatures() throws(EventError) {
        let hashes = try object("hashes")
        guard let sha256 = hashes["sha256"] else { throw .missing(field: "hashes.sha256") }
        guard sha256.kind == .string else { throw .wrongType(field: "hashes.sha256") }
        for (_, signatures) in try object("signatures").members {
            guard signatures.isObject, signatures.members.allSatisfy({ $0.value.kind == .string }) else {
                throw .wrongType(field: "signatures")
            }
        }
    }

    func redacts(content: JSONView) -> EventID? {
        (rules.redactsInContent ? content : root)["redacts"]?.string.flatMap(EventID.init)
    }
}
