import Database
import MatrixCore

/// Who the server is: its name, its key, and the epoch of its database. All three live in the database, so that every node
/// and every restart agree.
struct ServerIdentity: Sendable {
    let database: Database
    let surroundings: Surroundings

    /// Takes the database for a server name.
    ///
    /// - Throws: ``DatabaseError/unusable(_:)`` if it belongs to another one: user IDs, room IDs and signatures carry it.
    func claim(_ name: ServerName) async throws {
        let stored = String(
            decoding: try await database.setting("server_name", initial: Array(name.string.utf8)), as: UTF8.self)
        guard stored.hasSameBytes(as: name.string) else {
            throw DatabaseError.unusable(
                "server_name: the database belongs to “\(stored)”, not to “\(name)”. A server's name can't be changed: "
                    + "set server_name to “\(stored)”, or use another database.")
        }
    }

    /// Changes with each restore; eight hexadecimal digits.
    func epoch() async throws -> String {
        String(
            decoding: try await database.setting("epoch", initial: Self.newEpoch(surroundings)), as: UTF8.self)
    }

    static func newEpoch(_ surroundings: Surroundings) -> [UInt8] {
        Array(Hex.encode(surroundings.randomBytes(4)).utf8)
    }

    /// The key that this server signs with. The database's counts; a new database takes the file's, or a new one, which
    /// the file then holds too.
    func signingKey(seededFrom path: String) async throws -> SigningKey {
        if let stored = try await database.signingKey() {
            return try key(stored.keyID, stored.seed, from: "the database")
        }
        let (keyID, seed): (String, [UInt8])
        if let bytes = Files.read(path, limit: 4_096) {
            (keyID, seed) = try parse(String(decoding: bytes, as: UTF8.self), path)
        } else {
            keyID = "ed25519:" + surroundings.randomText(6, from: "abcdefghijklmnopqrstuvwxyz0123456789")
            seed = surroundings.randomBytes(32)
            let line = "ed25519 \(keyID.dropFirst("ed25519:".count)) \(Base64.encode(seed))\n"
            do {
                try Files.makeDirectories(Files.parent(of: path))
                try Files.write(Array(line.utf8), to: path)
            } catch let failure as Files.Failure {
                throw DatabaseError.unusable("signing_key_path: \(failure.description)")
            }
        }
        _ = try key(keyID, seed, from: path)
        let stored = try await database.putFirstSigningKey(keyID, seed: seed, at: surroundings.now())
        return try key(stored.keyID, stored.seed, from: "the database")
    }

    private func key(_ keyID: String, _ seed: [UInt8], from source: String) throws -> SigningKey {
        guard let key = SigningKey(seed: seed, version: String(keyID.dropFirst("ed25519:".count))) else {
            throw DatabaseError.unusable("signing_key_path: the key \(keyID) in \(source) is not an Ed25519 key.")
        }
        return key
    }

    /// The form that other servers use: `ed25519`, the key's version, and its seed in unpadded Base64.
    private func parse(_ text: String, _ path: String) throws -> (String, [UInt8]) {
        let words = text.split(whereSeparator: \.isWhitespace)
        guard words.count >= 3, words[0] == "ed25519", let seed = Base64.decode(String(words[2])), seed.count == 32
        else {
            throw DatabaseError.unusable(
                "signing_key_path: \(path) does not hold a line “ed25519 <version> <32 bytes in Base64>”.")
        }
        return ("ed25519:\(words[1])", seed)
    }
}
