import Database
import MatrixCore

/// Who makes a request, as its access token tells.
public struct Requester: Sendable, Hashable {
    public let nid: UserNID
    public let userID: UserID
    /// Empty for application services that speak for no device.
    public let deviceID: String
    public let isAdmin: Bool
    public let standing: AccountStanding
    /// The ID of the application service that speaks for the user; nil if it is the user.
    public let appservice: String?

    public init(
        nid: UserNID, userID: UserID, deviceID: String, isAdmin: Bool = false, standing: AccountStanding = [],
        appservice: String? = nil
    ) {
        self.nid = nid
        self.userID = userID
        self.deviceID = deviceID
        self.isAdmin = isAdmin
        self.standing = standing
        self.appservice = appservice
    }

    public var isGuest: Bool { standing.contains(.guest) }
    public var isLocked: Bool { standing.contains(.locked) }
    public var isSuspended: Bool { standing.contains(.suspended) }
}
