import Database
import Homeserver
import Logging
import MatrixCore

/// A homeserver on a database of its own in a temporary directory, without HTTP. On the engine of the current test.
public final class TestServer: Sendable {
    public let homeserver: Homeserver
    public let clock: ManualSurroundings
    public let directory: TemporaryDirectory
    public let configuration: Configuration

    /// - Parameters:
    ///   - directory: with what another server has left there, to start again upon it.
    ///   - engine: another engine than that of the current test.
    ///   - logger: where to log; nowhere unless it is given.
    public init(
        directory: TemporaryDirectory = TemporaryDirectory(), clock: ManualSurroundings = ManualSurroundings(),
        engine: (any Engine)? = nil, logger: Logger? = nil, transport: any FederationTransport = NoFederation(),
        configure: (inout Configuration) -> Void = { _ in }
    ) async throws {
        var configuration = Configuration()
        configuration.signingKeyPath = "\(directory.path)/signing.key"
        configuration.media.path = "\(directory.path)/media"
        configuration.registration.mode = .open
        configuration.rateLimits.enabled = false
        configure(&configuration)
        var silent = Logger(label: "test")
        silent.logLevel = .critical
        let logger = logger ?? silent
        self.directory = directory
        self.clock = clock
        self.configuration = configuration
        homeserver = try await Homeserver(
            configuration: configuration,
            engine: try await engine.asyncOr { try await EngineKind.engine(in: directory, logger: logger) },
            surroundings: clock.surroundings, logger: logger, transport: transport)
    }

    /// An account with a session. Its password is the name.
    public func user(_ name: String) async throws -> Requester {
        _ = try await homeserver.accounts.create(localpart: name, password: name, admin: false)
        let session = try await homeserver.accounts.logIn(user: name, password: name, deviceID: nil, displayName: nil)
        return try await homeserver.accounts.tokens.requester(for: session.accessToken)
    }

    /// A public room that the user has made.
    public func room(
        of user: Requester, version: String? = nil, _ change: (inout RoomCreationService.Request) -> Void = { _ in }
    ) async throws -> RoomID {
        var request = RoomCreationService.Request()
        request.preset = .publicChat
        request.roomVersion = version
        change(&request)
        return try await homeserver.creation.create(request, by: user)
    }

    /// Sends a text and returns its event ID. Each call is a transaction of its own.
    @discardableResult
    public func say(_ text: String, in room: RoomID, by user: Requester) async throws -> EventID {
        try await homeserver.sending.send(
            "m.room.message", content: ["msgtype": "m.text", "body": .string(text)], to: room,
            transactionID: clock.surroundings.randomBytes(8).map(String.init).joined(separator: "."), by: user)
    }

    /// Uploads a file and returns its media ID.
    ///
    /// - Parameter pending: the media ID that was given out for it before.
    @discardableResult
    public func upload(
        _ bytes: [UInt8], type: String? = nil, name: String? = nil, by user: Requester, pending: String? = nil
    ) async throws -> String {
        let upload = try homeserver.media.beginUpload()
        do {
            for start in stride(from: 0, to: bytes.count, by: 1_000) {
                try Array(bytes[start..<min(start + 1_000, bytes.count)]).withUnsafeBytes { try upload.write($0) }
            }
            let uri = try await upload.finish(contentType: type, fileName: name, by: user, pending: pending)
            return String(uri.split(separator: "/").last!)
        } catch {
            upload.abandon()
            throw error
        }
    }

    /// A sync's answer, parsed.
    public func sync(
        _ user: Requester, since: String? = nil, timeout: Int64 = 0, fullState: Bool = false, filter: String = "{}"
    ) async throws -> JSONView {
        let filter = try SyncFilter(try JSONDocument(parsing: Array(filter.utf8)).root)
        let answer = try await homeserver.sync.sync(
            .init(since: since, timeout: timeout, fullState: fullState, filter: filter), for: user)
        return try JSONDocument(parsing: answer, limits: .own).root
    }

    /// An answer of sliding sync, parsed.
    public func slidingSync(
        _ user: Requester, _ body: JSON, pos: String? = nil, timeout: Int64 = 0
    ) async throws -> JSONView {
        let request = try SlidingRequest(
            try JSONDocument(parsing: body.encoded()).root, pos: pos, timeout: timeout, presence: nil, for: user.userID)
        return try JSONDocument(
            parsing: try await homeserver.slidingSync.sync(request, for: user), limits: .own
        ).root
    }

    /// The bodies of the messages that a user sees on going back through a room, newest first.
    public func history(of room: RoomID, for user: Requester, page: Int = 10) async throws -> [String] {
        var bodies: [String] = []
        var from: String?
        repeat {
            let answer = try await homeserver.reading.messages(
                in: room, .init(from: from, to: nil, backwards: true, limit: page, filter: RoomEventFilter()), for: user
            )
            let root = try JSONDocument(parsing: answer, limits: .own).root
            bodies += root["chunk"]?.elements.compactMap { $0["content"]?["body"]?.string } ?? []
            from = root["end"]?.string
        } while from != nil
        return bodies
    }

    public func close() async { await homeserver.close() }
}

extension Optional {
    fileprivate func asyncOr(_ other: () async throws -> Wrapped) async rethrows -> Wrapped {
        if let value = self { return value }
        return try await other()
    }
}
