import Database
import MatrixCore

/// Who makes a request, as its access token tells.
public struct Requester: Sendable, Hashable {
    public let nid: UserNID
    public let userID: UserID
    public let deviceID: String
    public let isAdmin: Bool

    public init(nid: UserNID, userID: UserID, deviceID: String, isAdmin: Bool = false) {
        self.nid = nid
        self.userID = userID
        self.deviceID = deviceID
        self.isAdmin = isAdmin
    }
}
