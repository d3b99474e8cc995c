import Homeserver

/// The Client-Server API: a file for each module of the specification.
public struct ClientAPI: Sendable {
    let homeserver: Homeserver

    public init(_ homeserver: Homeserver) { self.homeserver = homeserver }

    /// What must let a request pass before it reaches an endpoint.
    public var gate: Router.Gate {
        let gate = Gate(homeserver: homeserver)
        return { try await gate.admit(&$0, $1) }
    }

    public var endpoints: [Endpoint] {
        serverEndpoints + registrationEndpoints + sessionEndpoints + roomCreationEndpoints + membershipEndpoints
            + roomEventEndpoints + directoryEndpoints + syncEndpoints + receiptEndpoints + mediaEndpoints
            + downloadEndpoints
            + sharedSecretEndpoints + profileEndpoints + accountDataEndpoints + deviceEndpoints + pushRuleEndpoints
            + publishedRoomEndpoints + relationEndpoints + presenceEndpoints + userDirectoryEndpoints
            + roomUpgradeEndpoints + roomSummaryEndpoints + notificationEndpoints + previewEndpoints
            + fallbackEndpoints + moderationEndpoints + reportEndpoints + contactEndpoints + keyEndpoints
            + toDeviceEndpoints + keyBackupEndpoints + dehydratedDeviceEndpoints + pusherEndpoints + spaceEndpoints
            + thirdPartyNetworkEndpoints + searchEndpoints + slidingSyncEndpoints + delayedEventEndpoints
            + threadSubscriptionEndpoints
    }
}
