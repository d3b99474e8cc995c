/// All that differs between room versions.
public struct RoomVersionRules: Sendable {
    public enum EventIDs: Sendable, Hashable {
        /// Chosen by the sending server and carried in `event_id`; `prev_events` and `auth_events` are pairs of ID and hashes.
        case assigned
        /// `$` and the reference hash; `prev_events` and `auth_events` are lists of IDs.
        case referenceHash(Base64.Alphabet)
    }

    public enum RoomIDs: Sendable {
        /// `!opaque:server`, in every event.
        case withDomain
        /// `!` and the reference hash of the create event, which itself has no `room_id`.
        case createEventHash
    }

    public enum StateResolution: Sendable {
        case v1
        case v2
        /// Room version 12: starts from an empty state, with the conflicted state subgraph.
        case v2Revised
    }

    public var eventIDs: EventIDs
    public var roomIDs: RoomIDs
    public var stateResolution: StateResolution
    /// Events with numbers other than integers within ±(2^53−1) are refused (Room Version 6, Canonical JSON).
    public var enforcesCanonicalJSON: Bool
    /// A key that signs an event must have been valid at its `origin_server_ts` (Room Version 5, Signing key validity
    /// period).
    public var enforcesKeyValidity: Bool
    /// `redacts` stands in `content`, not at the top level (Room Version 11).
    public var redactsInContent: Bool
    public var redaction: RedactionRules
    public var authorization: AuthorizationRules

    static let v1 = RoomVersionRules(
        eventIDs: .assigned, roomIDs: .withDomain, stateResolution: .v1, enforcesCanonicalJSON: false,
        enforcesKeyValidity: false, redactsInContent: false, redaction: .v1, authorization: .v1)
}

/// What redaction leaves (Room Version 1, Redactions, and what later versions change).
public struct RedactionRules: Sendable {
    public var topLevel: [String]
    /// Keys that `content` keeps, by event type; none for other types.
    public var content: [ByteString: [String]]
    /// Types whose whole content stays.
    public var wholeContent: [String]
    /// Member events keep `third_party_invite.signed`.
    public var keepsSignedThirdPartyInvite: Bool

    static let v1 = RedactionRules(
        topLevel: [
            "auth_events", "content", "depth", "event_id", "hashes", "membership", "origin", "origin_server_ts",
            "prev_events", "prev_state", "room_id", "sender", "signatures", "state_key", "type",
        ],
        content: [
            "m.room.member": ["membership"],
            "m.room.create": ["creator"],
            "m.room.join_rules": ["join_rule"],
            "m.room.power_levels": [
                "ban", "events", "events_default", "kick", "redact", "state_default", "users", "users_default",
            ],
            "m.room.aliases": ["aliases"],
            "m.room.history_visibility": ["history_visibility"],
        ],
        wholeContent: [], keepsSignedThirdPartyInvite: false)
}

/// What differs in the authorisation rules.
public struct AuthorizationRules: Sendable {
    public enum Creator: Sendable {
        /// `content.creator` of the create event, which must be there.
        case content
        /// The sender of the create event.
        case sender
    }

    public enum PowerLevelValues: Sendable {
        /// Integers, strings that are integers, and floats, which are truncated.
        case integersStringsAndFloats
        /// Integers and strings that are integers.
        case integersAndStrings
        case integers
    }

    public var creator: Creator
    /// The creators, `additional_creators` among them, stand above all power levels (Room Version 12).
    public var creatorsHaveInfinitePower: Bool
    /// Rule 4 of versions 1 to 5: `m.room.aliases` is judged by domain alone.
    public var aliasesAreSpecial: Bool
    /// Rule 11 of versions 1 and 2: redactions need the redact level, or an event of one's own server.
    public var redactionsNeedPower: Bool
    public var limitsNotificationLevels: Bool
    public var knocking: Bool
    public var restrictedJoins: Bool
    public var knockRestricted: Bool
    public var powerLevelValues: PowerLevelValues

    static let v1 = AuthorizationRules(
        creator: .content, creatorsHaveInfinitePower: false, aliasesAreSpecial: true, redactionsNeedPower: true,
        limitsNotificationLevels: false, knocking: false, restrictedJoins: false, knockRestricted: false,
        powerLevelValues: .integersStringsAndFloats)
}
