/// A room version: an identifier and the rules that rooms of this version live by (Room Versions).
///
/// What a version changes is a value, so no code asks "is the version at least 8?". Each version is the one before it
/// with a few rules replaced. An object, since it goes with everything that is done with events, and its rules are many.
public final class RoomVersion: Sendable {
    public let identifier: String
    public let rules: RoomVersionRules

    /// The stable versions, oldest first.
    public static let all: [RoomVersion] = [v1, v2, v3, v4, v5, v6, v7, v8, v9, v10, v11, v12]

    /// The version that new rooms should get (Room Versions, preamble).
    public static let `default` = v12

    /// Nil for versions that this server doesn't know. Versions are compared as opaque identifiers: "01" is not "1".
    public static func named(_ identifier: String) -> RoomVersion? {
        all.first { $0.identifier.hasSameBytes(as: identifier) }
    }

    /// Room Versions, Room version grammar: up to 32 characters of `a-z 0-9 . -`.
    public static func isValidIdentifier(_ identifier: String) -> Bool {
        (1...32).contains(identifier.utf8.count)
            && identifier.utf8.allSatisfy { byte in
                switch byte {
                case 0x61...0x7A, 0x30...0x39, 0x2E, 0x2D: true
                default: false
                }
            }
    }

    public static let v1 = RoomVersion("1", .v1)

    public static let v2 = v1.next("2") { rules in
        rules.stateResolution = .v2
    }

    public static let v3 = v2.next("3") { rules in
        rules.eventIDs = .referenceHash(.standard)
        rules.authorization.redactionsNeedPower = false
    }

    public static let v4 = v3.next("4") { rules in
        rules.eventIDs = .referenceHash(.urlSafe)
    }

    public static let v5 = v4.next("5") { rules in
        rules.enforcesKeyValidity = true
    }

    public static let v6 = v5.next("6") { rules in
        rules.enforcesCanonicalJSON = true
        rules.redaction.content["m.room.aliases"] = nil
        rules.authorization.aliasesAreSpecial = false
        rules.authorization.limitsNotificationLevels = true
        rules.authorization.powerLevelValues = .integersAndStrings
    }

    public static let v7 = v6.next("7") { rules in
        rules.authorization.knocking = true
    }

    public static let v8 = v7.next("8") { rules in
        rules.authorization.restrictedJoins = true
        rules.redaction.content["m.room.join_rules"]?.append("allow")
    }

    public static let v9 = v8.next("9") { rules in
        rules.redaction.content["m.room.member"]?.append("join_authorised_via_users_server")
    }

    public static let v10 = v9.next("10") { rules in
        rules.authorization.knockRestricted = true
        rules.authorization.powerLevelValues = .integers
    }

    public static let v11 = v10.next("11") { rules in
        rules.redaction.topLevel.removeAll { ["membership", "origin", "prev_state"].contains($0) }
        rules.redaction.wholeContent = ["m.room.create"]
        rules.redaction.content["m.room.power_levels"]?.append("invite")
        rules.redaction.content["m.room.redaction"] = ["redacts"]
        rules.redaction.keepsSignedThirdPartyInvite = true
        rules.redactsInContent = true
        rules.authorization.creator = .sender
    }

    public static let v12 = v11.next("12") { rules in
        rules.stateResolution = .v2Revised
        rules.roomIDs = .createEventHash
        rules.authorization.creatorsHaveInfinitePower = true
    }

    private init(_ identifier: String, _ rules: RoomVersionRules) {
        self.identifier = identifier
        self.rules = rules
    }

    private func next(_ identifier: String, _ change: (inout RoomVersionRules) -> Void) -> RoomVersion {
        var rules = rules
        change(&rules)
        return RoomVersion(identifier, rules)
    }
}

extension RoomVersion: Hashable, CustomStringConvertible {
    public static func == (a: RoomVersion, b: RoomVersion) -> Bool { a.identifier.hasSameBytes(as: b.identifier) }
    public func hash(into hasher: inout Hasher) { identifier.hashBytes(into: &hasher) }
    public var description: String { identifier }
}
