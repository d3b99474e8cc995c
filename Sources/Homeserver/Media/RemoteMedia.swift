import Database
import MatrixCore
import Synchronization

/// Files of other servers: fetched when somebody here wants one, written to the disk while they come, and kept (Server-Server API,
/// "Content Repository").
final class RemoteMedia: Sendable {
    private let client: FederationClient
    private let database: Database
    private let surroundings: Surroundings
    private let store: BlobStore
    private let disk: BlockingPool
    /// Bytes of one file.
    private let mostBytes: Int

    /// Fetches under way, so that many who want the same file fetch it once. The lock protects the table.
    private let running = Mutex<[String: Task<MediaRecord, any Error>]>([:])

    /// Milliseconds that a fetch takes at most, wherever it leads.
    private static let timeout: Int64 = 120_000
    /// Bytes of an answer besides the file.
    private static let mostBytesAround = 131_072

    init(
        client: FederationClient, database: Database, surroundings: Surroundings, store: BlobStore, disk: BlockingPool,
        mostBytes: Int
    ) {
        self.client = client
        self.database = database
        self.surroundings = surroundings
        self.store = store
        self.disk = disk
        self.mostBytes = mostBytes
    }

    /// The record of a file, fetched if it isn't here.
    ///
    /// - Parameter wait: milliseconds for which the other server is let wait for content that is still to come.
    /// - Throws: `M_NOT_FOUND`, `M_TOO_LARGE`, or what tells that the server can't be asked.
    func record(_ mediaID: String, of server: ServerName, wait: Int64) async throws -> MediaRecord {
        let nid = try await database.number(ofServer: server)
        // A backup leaves out what can be had again.
        if let known = try await database.remoteMedia(mediaID, of: nid), store.contains(known.contentHash) {
            return known
        }
        let key = "\(server)/\(mediaID)"
        let task = running.withLock { running in
            if let task = running[key] { return task }
            let task = Task {
                defer { self.running.withLock { $0[key] = nil } }
                let record = try await self.fetch(mediaID, of: server, wait: wait)
                var write = Write()
                write.insert(record, of: nid)
                try await self.database.write(write)
                return record
            }
            running[key] = task
            return task
        }
        return try await task.value
    }

    private func fetch(_ mediaID: String, of server: ServerName, wait: Int64) async throws -> MediaRecord {
        let deadline = surroundings.now() + Self.timeout
        let query = [("timeout_ms", String(min(max(wait, 0), 60_000)))]
        let path = FederationClient.path("/_matrix/federation/v1/media/download", mediaID, query: query)
        do {
            return try await receive(mediaID, isWrapped: true) { sink in
                _ = try await self.client.ask(
                    "GET", path, nil, server, into: sink, timeout: try self.left(until: deadline),
                    mostBytes: self.mostBytes + Self.mostBytesAround)
                guard let location = sink.location else { return }
                let file = try await self.client.transport.get(
                    location, into: sink, timeout: try self.left(until: deadline), mostBytes: self.mostBytes)
                guard file.status == 200 else { throw MediaService.none }
            }
        } catch let failure as FederationFailure where failure.code == "M_UNRECOGNIZED" || failure.status == 404 {
            return try await fetchAsBefore(mediaID, of: server, until: deadline)
        } catch let failure as FederationFailure {
            throw failure.clientError
        } catch let error as TransportError {
            throw MatrixError(.unknown, "The file can't be fetched: \(error).", status: 502)
        } catch is MultipartMedia.Unusable {
            throw MatrixError(.unknown, "The server \(server) sends no file.", status: 502)
        }
    }

    /// Servers from before version 1.11 of the specification serve files to everybody.
    private func fetchAsBefore(
        _ mediaID: String, of server: ServerName, until deadline: Int64
    ) async throws -> MediaRecord {
        let path = FederationClient.path(
            "/_matrix/media/v3/download", server.string, mediaID, query: [("allow_remote", "false")])
        do {
            return try await receive(mediaID, isWrapped: false) { sink in
                _ = try await self.client.ask(
                    "GET", path, nil, server, isSigned: false, into: sink, timeout: try self.left(until: deadline),
                    mostBytes: self.mostBytes)
            }
        } catch let failure as FederationFailure {
            throw failure.status == 404 ? MediaService.none : failure.clientError
        } catch is MultipartMedia.Unusable {
            throw MatrixError(.unknown, "The server \(server) sends no file.", status: 502)
        }
    }

    private func left(until deadline: Int64) throws -> Int64 {
        let left = deadline - surroundings.now()
        guard left > 0 else { throw TransportError(.timedOut, "it took too long to come") }
        return left
    }

    /// Has a file come, and keeps it; nothing of one that doesn't come whole stays.
    private func receive(
        _ mediaID: String, isWrapped: Bool, _ ask: (RemoteFile) async throws -> Void
    ) async throws -> MediaRecord {
        let sink = RemoteFile(
            isWrapped: isWrapped,
            into: try ArrivingFile(in: store, named: surroundings.randomText(24), mostBytes: mostBytes))
        do {
            try await ask(sink)
            return try await sink.keep(as: mediaID, at: surroundings.now(), on: disk)
        } catch {
            sink.abandon()
            throw error
        }
    }
}

/// What another server answers who is asked for a file, as it comes.
private final class RemoteFile: AnswerSink {
    private struct State {
        var isWrapped: Bool
        var media: MultipartMedia?
        var contentType: String?
        var fileName: String?
        var hasBegun = false
    }

    private let file: ArrivingFile
    /// The lock protects what was learned of the file; it is written while the lock is held.
    private let state: Mutex<State>

    /// - Parameter isWrapped: whether the answer is `multipart/mixed`, and not the file itself.
    init(isWrapped: Bool, into file: ArrivingFile) {
        self.file = file
        state = Mutex(State(isWrapped: isWrapped))
    }

    /// Where the file is to be had, if the answer names a place.
    var location: String? { state.withLock { $0.media?.location } }

    func begin(_ answer: ServerResponse) throws {
        try state.withLock { state in
            state.hasBegun = true
            // At the place that the answer has named lies the file itself.
            if state.isWrapped, state.media?.location == nil {
                guard let media = MultipartMedia(contentType: answer.header("content-type")) else {
                    throw MultipartMedia.Unusable()
                }
                state.media = media
            } else {
                state.isWrapped = false
                state.contentType = answer.header("content-type")
                state.fileName = answer.header("content-disposition").flatMap(MultipartMedia.fileName)
            }
        }
    }

    func take(_ bytes: UnsafeRawBufferPointer) throws {
        try state.withLock { state in
            if state.isWrapped {
                try state.media?.take(bytes) { try file.write($0) }
            } else {
                try file.write(bytes)
            }
        }
    }

    /// - Throws: ``MultipartMedia/Unusable`` if the answer ended before the file did.
    func keep(as mediaID: String, at now: Int64, on disk: BlockingPool) async throws -> MediaRecord {
        let (type, name) = try state.withLock { state in
            guard state.hasBegun, !state.isWrapped || state.media?.isComplete == true else {
                throw MultipartMedia.Unusable()
            }
            return (state.media?.contentType ?? state.contentType, state.media?.fileName ?? state.fileName)
        }
        let (hash, size) = try await file.keep(at: now, on: disk)
        return MediaRecord(
            mediaID: mediaID, uploader: UserNID(0), createdTS: now,
            contentType: type.flatMap { $0.utf8.count <= 255 ? $0 : nil },
            fileName: name.map { $0.shortened(to: 255) }, size: size, contentHash: hash)
    }

    func abandon() { file.abandon() }
}
