/// Why an event is not authorised (Room Versions, Authorisation rules).
public struct AuthorizationError: Error, Sendable, CustomStringConvertible {
    /// The rule that refused. Rules are named rather than numbered, because their numbers differ between room versions.
    public enum Rule: String, Sendable, Hashable {
        /// Rule 1: the create event.
        case createHasPreviousEvents
        case createRoomID
        case createRoomVersion
        case createWithoutCreator
        case additionalCreators
        /// Rule 2 (3 in version 12): the `auth_events`.
        case roomIDIsNotTheCreateEvent
        case duplicateAuthEvents
        case unexpectedAuthEvent
        case rejectedAuthEvent
        case noCreateEvent
        case authEventOfAnotherRoom
        /// Rule 3: `m.federate`.
        case notFederated
        /// Rule 4 of versions 1 to 5.
        case aliases
        /// The rules on `m.room.member`.
        case malformedMembership
        case notSignedByAuthorisingServer
        case join
        case invite
        case thirdPartyInvite
        case leave
        case ban
        case knock
        case unknownMembership
        /// The rules on all other events.
        case senderNotJoined
        case inviteLevel
        case requiredPowerLevel
        case stateKeyOfAnotherUser
        case malformedPowerLevels
        case powerLevelsNameCreator
        case powerLevelTooHigh
        /// Rule 11 of versions 1 and 2.
        case redaction
    }

    public let rule: Rule
    /// A sentence for a person.
    public let reason: String

    init(_ rule: Rule, _ reason: String) {
        self.rule = rule
        self.reason = reason
    }

    public var description: String { "\(reason) (\(rule.rawValue))" }
}
