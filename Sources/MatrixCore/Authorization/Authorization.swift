/// Whether an event is allowed (Room Versions, Authorisation rules).
///
/// The rules stand in the order of the text, each under a comment that names it. Numbers are those of room version 12;
/// where an earlier version has a rule of another number the comment says so.
public enum Authorization {
    /// The rules that judge an event against a state: the state that its auth events make up, the state before it, or the
    /// current state (Server-Server API, Checks performed on receipt of a PDU, steps 4 to 6).
    ///
    /// Signatures have been verified before; only whether the authorising server of a restricted join is among the
    /// signers is looked at here.
    ///
    /// - Parameters:
    ///   - event: The event to judge.
    ///   - state: The event at a key of that state. It must answer for the create event in all room versions, in
    ///     version 12 with the accepted create event that the room ID names.
    /// - Throws: ``AuthorizationError`` if the event is not allowed.
    public static func check(_ event: Event, state: (StateKey) -> Event?) throws(AuthorizationError) {
        // 1. m.room.create.
        if event.type.hasSameBytes(as: "m.room.create") {
            try checkCreate(event)
            return
        }

        // 2. (version 12) The room ID names an accepted create event; 3.4 (earlier) there is a create event.
        guard let create = state(.create) else {
            throw AuthorizationError(.noCreateEvent, "The room has no create event.")
        }
        guard create.roomID == event.roomID else {
            throw AuthorizationError(.roomIDIsNotTheCreateEvent, "The create event is that of another room.")
        }
        guard Self.roomVersion(of: create) == event.version else {
            throw AuthorizationError(.createRoomVersion, "The room has another version than the event is judged by.")
        }

        // 3. is `checkAuthEvents`.

        // 4. m.federate.
        if create.content["m.federate"]?.bool == false, event.sender.server != create.sender.server {
            throw AuthorizationError(.notFederated, "The room does not federate, and the sender is on another server.")
        }

        let context = Context(event: event, create: create, state: state)

        // 4. (versions 1 to 5) m.room.aliases.
        if context.rules.aliasesAreSpecial, event.type.hasSameBytes(as: "m.room.aliases") {
            // 4.1, 4.2, 4.3.
            guard let stateKey = event.stateKey, stateKey.hasSameBytes(as: event.sender.server.string) else {
                throw AuthorizationError(.aliases, "Aliases are set by a server for itself.")
            }
            return
        }

        // 5. m.room.member.
        if event.type.hasSameBytes(as: "m.room.member") {
            try context.checkMembership()
            return
        }

        // 6. The sender is joined.
        guard context.membership(of: event.sender.string) == .join else {
            throw AuthorizationError(.senderNotJoined, "\(event.sender) is not joined to the room.")
        }
        let senderLevel = context.powerLevels.level(of: event.sender)

        // 7. m.room.third_party_invite.
        if event.type.hasSameBytes(as: "m.room.third_party_invite") {
            guard senderLevel >= PowerLevel.finite(context.powerLevels.invite) else {
                throw AuthorizationError(
                    .inviteLevel,
                    "\(event.sender) has power level \(senderLevel), inviting needs \(context.powerLevels.invite).")
            }
            return
        }

        // 8. The required power level.
        let required = context.powerLevels.required(type: event.type, isState: event.isState)
        guard senderLevel >= PowerLevel.finite(required) else {
            throw AuthorizationError(
                .requiredPowerLevel,
                "\(event.sender) has power level \(senderLevel), sending \(event.type) needs \(required).")
        }

        // 9. State keys that are user IDs belong to that user.
        if let stateKey = event.stateKey, stateKey.utf8.first == 0x40,
            !stateKey.hasSameBytes(as: event.sender.string)
        {
            throw AuthorizationError(
                .stateKeyOfAnotherUser, "\(event.sender) may not set state that belongs to \(stateKey).")
        }

        // 10. m.room.power_levels.
        if event.type.hasSameBytes(as: "m.room.power_levels") {
            try context.checkPowerLevels()
            return
        }

        // 11. (versions 1 and 2) m.room.redaction.
        if context.rules.redactionsNeedPower, event.type.hasSameBytes(as: "m.room.redaction") {
            // 11.1.
            if senderLevel >= PowerLevel.finite(context.powerLevels.redact) { return }
            // 11.2.
            if let redacted = event.redacts?.server, redacted == event.eventID.server { return }
            // 11.3.
            throw AuthorizationError(
                .redaction,
                "\(event.sender) has power level \(senderLevel), redacting events of other servers needs \(context.powerLevels.redact)."
            )
        }

        // 11. (12 in versions 1 and 2) Otherwise, allow.
    }

    /// 1. The create event.
    private static func checkCreate(_ event: Event) throws(AuthorizationError) {
        // 1.1.
        guard event.prevEvents.isEmpty else {
            throw AuthorizationError(.createHasPreviousEvents, "A create event has no previous events.")
        }
        // 1.2.
        switch event.version.rules.roomIDs {
        case .withDomain:
            guard event.roomID.server == event.sender.server else {
                throw AuthorizationError(.createRoomID, "The room ID is not one of the sender's server.")
            }
        case .createEventHash:
            guard event.root["room_id"] == nil else {
                throw AuthorizationError(.createRoomID, "A create event of this room version carries no room ID.")
            }
        }
        // 1.3. An event that is judged by another version than the one it names would mean two rooms at once.
        guard roomVersion(of: event) == event.version else {
            throw AuthorizationError(.createRoomVersion, "The create event does not name the version of this room.")
        }
        // 1.4. (versions 1 to 10)
        let rules = event.version.rules.authorization
        if rules.creator == .content, event.content["creator"] == nil {
            throw AuthorizationError(.createWithoutCreator, "The create event names no creator.")
        }
        // 1.4. (version 12)
        if rules.creatorsHaveInfinitePower, let additional = event.content["additional_creators"] {
            guard additional.isArray,
                additional.elements.allSatisfy({ $0.string.flatMap { UserID($0) } != nil })
            else {
                throw AuthorizationError(.additionalCreators, "additional_creators is not a list of user IDs.")
            }
        }
    }

    /// The version that a create event gives its room; nil if it is none that we know.
    static func roomVersion(of create: Event) -> RoomVersion? {
        guard let named = create.content["room_version"] else { return .v1 }
        return named.string.flatMap(RoomVersion.named)
    }

    /// The rules about `auth_events` themselves: 3 in room version 12, 2 before.
    ///
    /// - Parameters:
    ///   - event: The event whose `auth_events` they are.
    ///   - authEvents: All events that `auth_events` lists. An event that cannot be found is the caller's to fetch or to
    ///     refuse.
    ///   - isRejected: Whether one of them was rejected when it was received.
    public static func checkAuthEvents(
        _ event: Event, authEvents: [Event], isRejected: (EventID) -> Bool = { _ in false }
    ) throws(AuthorizationError) {
        // The create event has none to consider: rule 1 has decided about it.
        if event.type.hasSameBytes(as: "m.room.create") { return }
        let expected = Set(requiredStateKeys(for: event))
        var seen = Set<StateKey>()
        for authEvent in authEvents {
            guard let key = authEvent.stateMapKey else {
                throw AuthorizationError(.unexpectedAuthEvent, "The auth event \(authEvent.eventID) is no state event.")
            }
            // 3.1.
            guard seen.insert(key).inserted else {
                throw AuthorizationError(.duplicateAuthEvents, "Two auth events are for \(key).")
            }
            // 3.2.
            guard expected.contains(key) else {
                throw AuthorizationError(.unexpectedAuthEvent, "The auth event \(key) has no say in this event.")
            }
            // 3.3.
            guard !isRejected(authEvent.eventID) else {
                throw AuthorizationError(.rejectedAuthEvent, "The auth event \(authEvent.eventID) was rejected.")
            }
            // 3.5.
            guard authEvent.roomID == event.roomID, authEvent.version == event.version else {
                throw AuthorizationError(
                    .authEventOfAnotherRoom, "The auth event \(authEvent.eventID) is one of another room.")
            }
        }
        // 3.4. (versions 1 to 11)
        if event.version.rules.roomIDs == .withDomain, !seen.contains(.create) {
            throw AuthorizationError(.noCreateEvent, "The create event is not among the auth events.")
        }
    }

    /// Whether a redaction that the rules allow is to be carried out, from room version 3 on
    /// (Room Version 3, Handling redactions).
    ///
    /// - Parameters:
    ///   - redaction: The redaction event.
    ///   - target: The event that it names.
    ///   - powerLevels: The power levels at the redaction.
    public static func redactionApplies(_ redaction: Event, to target: Event, powerLevels: PowerLevels) -> Bool {
        guard redaction.roomID == target.roomID, redaction.redacts == target.eventID else { return false }
        // Versions 1 and 2 have decided by the authorisation rules.
        if redaction.version.rules.authorization.redactionsNeedPower { return true }
        return powerLevels.level(of: redaction.sender) >= .finite(powerLevels.redact)
            || redaction.sender.server == target.sender.server
    }

    /// What the rules about one event look at.
    struct Context {
        let event: Event
        let create: Event
        /// The part of the state that the auth events selection names; nothing else has a say.
        let state: [StateKey: Event]
        let powerLevels: PowerLevels
        let currentPowerLevels: Event?
        var rules: AuthorizationRules { event.version.rules.authorization }
    }
}

/// `membership` of an `m.room.member` event.
public enum Membership: String, Sendable, Hashable {
    case invite
    case join
    case knock
    case leave
    case ban

    /// Nil for anything else.
    public init?(_ value: JSONView?) {
        guard let value, let membership = value.string.flatMap(Self.init(rawValue:)),
            value.isString(membership.rawValue)
        else { return nil }
        self = membership
    }
}

extension Authorization.Context {
    init(event: Event, create: Event, state: (StateKey) -> Event?) {
        self.event = event
        self.create = create
        var selected: [StateKey: Event] = [:]
        for key in Authorization.requiredStateKeys(for: event) { selected[key] = state(key) }
        self.state = selected
        currentPowerLevels = selected[.powerLevels]
        powerLevels = PowerLevels(event: currentPowerLevels, create: create)
    }

    /// A user without a member event has left the room, or has never been in it. The same goes for one whose
    /// membership is unknown.
    func membership(of user: String) -> Membership {
        Membership(state[.member(user)]?.content["membership"]) ?? .leave
    }
}
