import Database
import MatrixCore

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

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
        guard stored.utf8.elementsEqual(name.string.utf8) else {
            throw DatabaseError.unusable(
                "server_name: the database belongs to “\(stored)”, not to “\(name)”. A server's name can't be changed: "
                    + "set server_name to “\(stored)”, or use another database.")
        }
    }

    /// Changes with each restore; eight hexadecimal digits.
    func epoch() async throws -> String {
        String(
            decoding: try await database.setting("epoch", initial: Array(Hex.encode(surroundings.randomBytes(4)).utf8)),
            as: UTF8.self)
    }

    /// The key that this server signs with. The database's counts; a new database takes the file's, or a new one, which
    /// the file then holds too.
    func signingKey(seededFrom path: String) async throws -> SigningKey {
        if let stored = try await database.signingKey() {
            return try key(stored.keyID, stored.seed, from: "the database")
        }
        let (keyID, seed): (String, [UInt8])
        if let text = Self.read(path) {
            (keyID, seed) = try parse(text, path)
        } else {
            keyID = "ed25519:" + surroundings.randomText(6, from: "abcdefghijklmnopqrstuvwxyz0123456789")
            seed = surroundings.randomBytes(32)
            try Self.write("ed25519 \(keyID.dropFirst("ed25519:".count)) \(Base64.encode(seed))\n", to: path)
        }
        let made = try key(keyID, seed, from: path)
        try await database.putSigningKey(keyID, seed: seed, at: surroundings.now())
        return made
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

    private static func read(_ path: String) -> String? {
        let descriptor = open(path, O_RDONLY)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: 4_096)
        let count = Glibc.read(descriptor, &bytes, bytes.count)
        return count < 0 ? nil : String(decoding: bytes[..<count], as: UTF8.self)
    }

    private static func write(_ text: String, to path: String) throws {
        if let slash = path.lastIndex(of: "/"), slash != path.startIndex {
            try BlobStore.makeDirectories(String(path[..<slash]))
        }
        let descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL, 0o600)
        let bytes = Array(text.utf8)
        guard descriptor >= 0 else {
            throw DatabaseError.unusable(
                "signing_key_path: \(path) can't be written: \(String(cString: strerror(errno))).")
        }
        defer { close(descriptor) }
        guard Glibc.write(descriptor, bytes, bytes.count) == bytes.count, fsync(descriptor) == 0 else {
            throw DatabaseError.unusable(
                "signing_key_path: \(path) can't be written: \(String(cString: strerror(errno))).")
        }
    }
}
