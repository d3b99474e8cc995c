import Homeserver
import MatrixCore
import RoostTestSupport

extension TestServer {
    /// Gives a user's device other keys: those that follow from a seed.
    func changeKeys(of user: Requester, to seed: UInt64) async throws {
        let keys: JSON = [
            "device_keys": SigningTestKey(seed: seed).deviceKeys(of: user.userID.string, user.deviceID)
        ]
        _ = try await homeserver.deviceKeys.upload(keys.view, for: user)
    }

    /// The keys of a user's device as somebody on this server sees them.
    func keys(of user: Requester, for requester: Requester) async throws -> [UInt8]? {
        let asked: JSON = [user.userID.string: []]
        let answer = try await homeserver.deviceKeys.query(asked.view, for: requester)
        return try answer["device_keys"]?[user.userID.string]?[user.deviceID]?["keys"]?.canonical()
    }

    /// Whether these are those of a seed.
    func knowsKeys(of user: Requester, _ seed: UInt64, for requester: Requester) async throws -> Bool {
        let keys = SigningTestKey(seed: seed).deviceKeys(of: user.userID.string, user.deviceID)
        return try await self.keys(of: user, for: requester) == keys["keys"]?.canonical()
    }
}
