/// An event that is still to be hashed and signed.
public struct EventTemplate: Sendable {
    public var version: RoomVersion
    /// Nil for the create event of a room whose ID follows from it (room version 12).
    public var roomID: RoomID?
    public var sender: UserID
    public var type: String
    public var stateKey: String?
    public var content: JSON
    public var prevEvents: [EventID]
    public var authEvents: [EventID]
    public var depth: Int64
    /// Milliseconds since 1970.
    public var originServerTS: Int64
    /// For `m.room.redaction`: placed at the top level or in the content as the room version asks.
    public var redacts: EventID?
    /// Room versions 1 and 2: the ID, chosen by the caller, who has a source of randomness.
    public var eventID: EventID?
    /// Room versions 1 and 2: reference hashes of previous and auth events, where known.
    public var referenceHashes: [EventID: [UInt8]] = [:]
    /// Further members of the event, which the specification doesn't name.
    public var members: JSONObject

    public init(
        version: RoomVersion, roomID: RoomID?, sender: UserID, type: String, stateKey: String? = nil, content: JSON,
        prevEvents: [EventID], authEvents: [EventID], depth: Int64, originServerTS: Int64, redacts: EventID? = nil,
        eventID: EventID? = nil, members: JSONObject = [:]
    ) {
        self.version = version
        self.roomID = roomID
        self.sender = sender
        self.type = type
        self.stateKey = stateKey
        self.content = content
        self.prevEvents = prevEvents
        self.authEvents = authEvents
        self.depth = depth
        self.originServerTS = originServerTS
        self.redacts = redacts
        self.eventID = eventID
        self.members = members
    }

    /// Hashes and signs (Server-Server API, Adding hashes and signatures to outgoing events).
    ///
    /// - Throws: ``EventError`` if the result would not be an event: too large, content that is no object or not
    ///   canonical JSON, an ID missing.
    public func signed(by key: SigningKey, as server: ServerName) throws(EventError) -> Event {
        // The hash covers the canonical form, so floats and large integers are refused here for all room versions.
        let bare = try document(of: unsignedObject()).root
        // Hashes and signatures go where they belong between the members: all else stands as it is.
        let hash = Base64.encode(Hashing.sha256(bare.document.bytes))
        let hashes = ("hashes", Array(#"{"sha256":"\#(hash)"}"#.utf8))
        let covered = EventHashing.redacted(
            bare, type: type, rules: version.rules.redaction, omitting: ["signatures", "unsigned"], adding: hashes)
        let signature: JSON = [server.string: [key.keyID: .string(Base64.encode(key.sign(covered)))]]
        let bytes = EventHashing.whole(bare, adding: [hashes, ("signatures", signature.encoded())])
        return try Event(canonical: bytes, version: version)
    }

    private func document(of object: JSON) throws(EventError) -> JSONDocument {
        let bytes: [UInt8]
        do {
            bytes = try object.canonical()
        } catch {
            throw .notCanonical(error)
        }
        return try EventDecoder.parse(bytes, limits: .default)
    }

    private func unsignedObject() -> JSON {
        var object = JSON.object(members)
        let known: JSONObject = [
            "type": .string(type), "sender": .string(sender.string), "depth": .integer(depth),
            "origin_server_ts": .integer(originServerTS), "prev_events": references(prevEvents),
            "auth_events": references(authEvents), "content": content,
        ]
        for (name, value) in known { object[name] = value }
        if case .raw = content, let parsed = try? content.document().root.json { object["content"] = parsed }
        let isRoot = version.rules.roomIDs == .createEventHash && type.hasSameBytes(as: "m.room.create")
        if let roomID, !isRoot { object["room_id"] = .string(roomID.string) }
        if let stateKey { object["state_key"] = .string(stateKey) }
        if version.rules.eventIDs == .assigned, let eventID { object["event_id"] = .string(eventID.string) }
        if let redacts {
            if version.rules.redactsInContent {
                object["content"]?["redacts"] = .string(redacts.string)
            } else {
                object["redacts"] = .string(redacts.string)
            }
        }
        return object
    }

    private func references(_ events: [EventID]) -> JSON {
        switch version.rules.eventIDs {
        case .referenceHash: .array(events.map { .string($0.string) })
        case .assigned:
            .array(
                events.map { event in
                    let hash = referenceHashes[event].map { ["sha256": JSON.string(Base64.encode($0))] as JSON }
                    return [.string(event.string), hash ?? [:]]
                })
        }
    }
}

extension Event {
    /// The event with another server's signature added: for restricted joins, which the resident server signs as well,
    /// and for policy servers.
    ///
    /// - Throws: ``EventError`` if the event grows beyond the limit.
    public func addingSignature(by key: SigningKey, as server: ServerName) throws(EventError) -> Event {
        try addingSignature(key.sign(signedBytes()), keyID: key.keyID, of: server)
    }

    /// The same with a signature that was made elsewhere.
    public func addingSignature(
        _ signature: [UInt8], keyID: String, of server: ServerName
    ) throws(EventError) -> Event {
        var object = root.json
        var signatures = object["signatures"] ?? [:]
        var own = signatures[server.string] ?? [:]
        own[keyID] = .string(Base64.encode(signature))
        signatures[server.string] = own
        object["signatures"] = signatures
        return try Event(receiving: object.encoded(), version: version)
    }
}
