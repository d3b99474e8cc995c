import Database
import Logging
import MatrixCore
import Synchronization

/// The keys of other servers (Server-Server API, "Retrieving server keys"): in memory, in the database, and where they come from.
final class ServerKeyRing: Sendable {
    private let database: Database
    private let client: FederationClient
    private let surroundings: Surroundings
    /// Servers that are believed about the keys of others that can't be reached.
    private let notaries: [ServerName]

    private enum Outcome: Sendable {
        case came, failed
        /// It was asked just now.
        case notAsked
    }

    private struct State {
        var keys = BoundedCache<ServerName, [String: VerifyKey]>(capacity: 20_000)
        /// When a server was asked last, whatever it answered: a stranger's key IDs don't make this one ask without end.
        var asked = BoundedCache<ServerName, Int64>(capacity: 50_000)
        /// Who waits for what a question to a server comes to, and to the notaries about it.
        var askingItself: [ServerName: [CheckedContinuation<Outcome?, Never>]] = [:]
        var askingAnybody: [ServerName: [CheckedContinuation<Outcome?, Never>]] = [:]
    }

    /// The lock protects the tables; nothing is awaited while it is held.
    private let state = Mutex(State())

    /// Milliseconds between two questions to the same server, and that one takes at most.
    private static let pause: Int64 = 60_000
    private static let timeout: Int64 = 10_000
    private static let mostBytes = 64 << 10
    /// Servers that are asked at the same time.
    private static let atOnce = 16

    init(database: Database, client: FederationClient, surroundings: Surroundings, notaries: [ServerName]) {
        self.database = database
        self.client = client
        self.surroundings = surroundings
        self.notaries = notaries
    }

    /// A key of a server, if it is good for a moment; nil if it can't be had.
    func key(_ keyID: String, of server: ServerName, at time: Int64) async throws -> VerifyKey? {
        if server == client.serverName { return try await ownKey(keyID) }
        let known = try await keys(of: server)[keyID]
        if let known, known.validUntil ?? 0 >= time { return known }
        try await fetch(server)
        return try await keys(of: server)[keyID]
    }

    /// Whether a server that would be asked for its keys is a mere name: no key of it is here.
    func wouldAskStranger(_ server: ServerName) async throws -> Bool {
        guard try await keys(of: server).isEmpty, !client.health.isResting(server) else { return false }
        let now = surroundings.now()
        return state.withLock { state in state.asked[server].map { now - $0 >= Self.pause } ?? true }
    }

    /// What is needed to check the signatures of events: the keys are fetched that aren't here.
    func keys(for events: [Event]) async throws -> @Sendable (ServerName, String) -> VerifyKey? {
        var wanted: [ServerName: (keyIDs: Set<String>, time: Int64)] = [:]
        for event in events {
            for server in event.requiredSigners {
                let entry = wanted[server] ?? ([], 0)
                wanted[server] = (
                    entry.keyIDs.union(event.signatureKeyIDs(of: server)), max(entry.time, event.originServerTS)
                )
            }
        }
        var found: [ServerName: [String: VerifyKey]] = [:]
        var missing: [ServerName] = []
        for (server, need) in wanted {
            if server == client.serverName {
                for keyID in need.keyIDs {
                    if let key = try await ownKey(keyID) { found[server, default: [:]][keyID] = key }
                }
                continue
            }
            let known = try await keys(of: server)
            found[server] = known
            // A time in the future is a claim; a key that is good now is good enough to ask nobody.
            let time = min(need.time, surroundings.now())
            if !need.keyIDs.contains(where: { known[$0].map { $0.validUntil ?? 0 >= time } ?? false }) {
                missing.append(server)
            }
        }
        try await fetchAll(missing)
        // Also where nothing came now: somebody else may have had it come since it was looked for.
        for server in missing { found[server] = try await keys(of: server) }
        let keys = found
        return { keys[$0]?[$1] }
    }

    private func ownKey(_ keyID: String) async throws -> VerifyKey? {
        if keyID == client.signingKey.keyID { return client.signingKey.verifyKey }
        for old in try await database.expiredSigningKeys() where old.key.keyID == keyID {
            let version = String(keyID.dropFirst("ed25519:".count))
            guard let key = SigningKey(seed: old.key.seed, version: version) else { continue }
            return VerifyKey(keyID: keyID, publicKey: key.publicKey, validUntil: old.expired)
        }
        return nil
    }

    private func keys(of server: ServerName) async throws -> [String: VerifyKey] {
        if let known = state.withLock({ $0.keys[server] }) { return known }
        // A name that nothing is known of but a claim takes no place in the database.
        guard let nid = try await database.existingNumber(ofServer: server) else { return [:] }
        let stored = try await database.serverKeys(of: nid)
        var keys: [String: VerifyKey] = [:]
        for key in stored {
            keys[key.keyID] = VerifyKey(keyID: key.keyID, publicKey: key.publicKey, validUntil: key.validUntil)
        }
        let read = keys
        return state.withLock { state in
            // What has come while the database was asked is newer.
            if let known = state.keys[server] { return known }
            state.keys.insert(read, for: server, size: 1)
            return read
        }
    }

    private func remember(_ keys: [String: VerifyKey], of server: ServerName) {
        state.withLock { $0.keys.insert(keys, for: server, size: 1) }
    }

    // MARK: - Fetching

    /// Fetches the keys of several servers at the same time.
    private func fetchAll(_ servers: [ServerName]) async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            var rest = servers.sorted()[...]
            func next() {
                guard let server = rest.popFirst() else { return }
                group.addTask { try await self.fetch(server) }
            }
            for _ in 0..<Self.atOnce { next() }
            while try await group.next() != nil { next() }
        }
    }

    /// Asks a server for its keys, and the notaries if it doesn't answer.
    private func fetch(_ server: ServerName) async throws {
        _ = try await together(on: server, \.askingAnybody) { [self] in
            let outcome = try await self.fetchFromItself(server)
            guard case .failed = outcome else { return outcome }
            for notary in self.notaries where notary != server {
                if let document = try await self.ask(notary, about: server) {
                    try await self.keep(document, at: self.surroundings.now())
                    return .came
                }
            }
            return .failed
        }
    }

    /// Asks a server for its keys, unless it was asked just now.
    private func fetchFromItself(_ server: ServerName) async throws -> Outcome {
        try await together(on: server, \.askingItself) { [self] in
            let now = self.surroundings.now()
            let mayAsk = self.state.withLock { state in
                if let asked = state.asked[server], now - asked < Self.pause { return false }
                state.asked.insert(now, for: server, size: 1)
                return true
            }
            guard mayAsk else { return .notAsked }
            guard !self.client.health.isResting(server) else { return .failed }
            let answer = try? await self.client.ask(
                "GET", "/_matrix/key/v2/server", nil, server, isSigned: false, timeout: Self.timeout,
                mostBytes: Self.mostBytes)
            if let answer, let view = (try? JSONDocument(parsing: answer.body))?.root,
                let document = ServerKeyDocument(view, of: server)
            {
                try await self.keep(document, at: now)
                return .came
            }
            // It could not be reached this time; the next event may find it again.
            if answer == nil {
                self.state.withLock { $0.asked.insert(now - Self.pause + 5_000, for: server, size: 1) }
            }
            return .failed
        }
    }

    private typealias Waiting = WritableKeyPath<State, [ServerName: [CheckedContinuation<Outcome?, Never>]]> & Sendable

    /// Does for a server what somebody may be doing already: then it waits, and takes what that comes to. Events that come while
    /// the keys are on their way are as good as those that had them fetched; and it is done to its end, should who began with it go.
    private func together(
        on server: ServerName, _ waiting: Waiting, _ work: @escaping @Sendable () async throws -> Outcome
    ) async throws -> Outcome {
        let others: Outcome? = await withCheckedContinuation { continuation in
            let isFirst = state.withLock { state in
                if state[keyPath: waiting][server] == nil {
                    state[keyPath: waiting][server] = []
                    return true
                }
                state[keyPath: waiting][server]?.append(continuation)
                return false
            }
            if isFirst { continuation.resume(returning: nil) }
        }
        if let others { return others }
        let result = await Task { try await work() }.result
        let all = state.withLock { $0[keyPath: waiting].removeValue(forKey: server) } ?? []
        for one in all { one.resume(returning: (try? result.get()) ?? .failed) }
        return try result.get()
    }

    /// A key of a notary, as it says itself: notaries don't vouch for one another, which could go round in circles.
    private func notaryKey(_ keyID: String, of notary: ServerName) async throws -> VerifyKey? {
        if let known = try await keys(of: notary)[keyID], known.validUntil ?? 0 >= surroundings.now() { return known }
        _ = try await fetchFromItself(notary)
        return try await keys(of: notary)[keyID]
    }

    /// Server-Server API, "Querying keys through another server": the notary must have signed the answer, too.
    private func ask(_ notary: ServerName, about server: ServerName) async throws -> ServerKeyDocument? {
        let question: JSON = ["server_keys": [server.string: [:]]]
        guard
            let answer = try? await client.post(
                "/_matrix/key/v2/query", question, to: notary, timeout: Self.timeout, mostBytes: Self.mostBytes),
            let list = answer["server_keys"], list.isArray
        else { return nil }
        for view in list.elements {
            guard let document = ServerKeyDocument(view, of: server) else { continue }
            for keyID in view["signatures"]?[notary.string]?.members.map(\.key) ?? [] {
                if let key = try await notaryKey(keyID, of: notary), view.isSigned(by: notary, with: key) {
                    return document
                }
            }
        }
        return nil
    }

    private func keep(_ document: ServerKeyDocument, at now: Int64) async throws {
        let validUntil = VerifyKey.validity(validUntilTS: document.validUntil, fetchedAt: now)
        var stored = document.keys.map {
            Database.StoredServerKey(keyID: $0.key, publicKey: $0.value, validUntil: validUntil, isOld: false)
        }
        stored += document.oldKeys.map {
            Database.StoredServerKey(
                keyID: $0.key, publicKey: $0.value.publicKey, validUntil: $0.value.expired, isOld: true)
        }
        var keys = try await keys(of: document.server)
        for key in stored {
            keys[key.keyID] = VerifyKey(keyID: key.keyID, publicKey: key.publicKey, validUntil: key.validUntil)
        }
        var write = Write()
        write.put(
            stored, document: Array(document.view.raw), validUntil: document.validUntil,
            of: try await database.number(ofServer: document.server), at: now)
        try await database.write(write)
        remember(keys, of: document.server)
    }

    // MARK: - Answering

    /// What other servers are told about a server's keys (Server-Server API, "Querying keys through another server"): its
    /// document with this server's signature; nil if nothing is known.
    ///
    /// - Parameter minimumValidUntil: asked anew if what is known ends before.
    func notarised(_ server: ServerName, minimumValidUntil: Int64) async throws -> JSON? {
        func document() async throws -> (json: [UInt8], validUntil: Int64, fetched: Int64)? {
            guard let nid = try await database.existingNumber(ofServer: server) else { return nil }
            return try await database.keyDocument(of: nid)
        }
        var known = try await document()
        if known.map({ $0.validUntil < minimumValidUntil || $0.fetched + 12 * 3_600_000 < surroundings.now() }) ?? true
        {
            _ = try await fetch(server)
            known = try await document()
        }
        guard let known, let view = (try? JSONDocument(parsing: known.json))?.root else { return nil }
        return try client.signingKey.sign(view.json, as: client.serverName)
    }
}
