/// Who makes a request, as its access token tells.
public struct Requester: Sendable, Hashable {
    /// The user's full identifier, `@localpart:server`.
    public var userID: String
    /// The device the access token belongs to; none for tokens of application services.
    public var deviceID: String?
    public var isAdmin: Bool
    public var isGuest: Bool

    public init(userID: String, deviceID: String?, isAdmin: Bool = false, isGuest: Bool = false) {
        self.userID = userID
        self.deviceID = deviceID
        self.isAdmin = isAdmin
        self.isGuest = isGuest
    }
}
