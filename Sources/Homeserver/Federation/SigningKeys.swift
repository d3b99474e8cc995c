import Database
import MatrixCore
import Synchronization

/// The key that this server signs with, which may be changed for another one while the server runs (`roost keys rotate`).
public final class SigningKeys: Sendable {
    private let database: Database
    private let surroundings: Surroundings
    /// The lock protects the key.
    private let key: Mutex<SigningKey>

    init(_ key: SigningKey, database: Database, surroundings: Surroundings) {
        self.database = database
        self.surroundings = surroundings
        self.key = Mutex(key)
    }

    var current: SigningKey { key.withLock { $0 } }

    /// Gives up the key for a new one. What was signed with it stays valid: other servers are told until when it was good.
    ///
    /// - Returns: the new key's ID.
    public func rotate() async throws -> String {
        let version = surroundings.randomText(6, from: "abcdefghijklmnopqrstuvwxyz0123456789")
        let seed = surroundings.randomBytes(32)
        guard let new = SigningKey(seed: seed, version: version) else {
            throw DatabaseError.corrupt("a new signing key can't be made")
        }
        try await database.rotateSigningKey(to: new.keyID, seed: seed, at: surroundings.now())
        key.withLock { $0 = new }
        return new.keyID
    }

    /// Takes up what another node may have changed it for.
    func reload() async throws {
        guard let stored = try await database.signingKey(), stored.keyID != current.keyID,
            let new = SigningKey(seed: stored.seed, version: String(stored.keyID.dropFirst("ed25519:".count)))
        else { return }
        key.withLock { $0 = new }
    }
}
