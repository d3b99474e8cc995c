import Database
import MatrixCore
import Synchronization

/// Files of other servers: fetched when somebody here wants one, and kept (Server-Server API, "Content Repository").
final class RemoteMedia: Sendable {
    private let client: FederationClient
    private let database: Database

    /// Fetches under way, so that many who want the same file fetch it once. The lock protects the table.
    private let running = Mutex<[String: Task<MediaRecord, any Error>]>([:])

    private static let timeout: Int64 = 120_000

    init(client: FederationClient, database: Database) {
        self.client = client
        self.database = database
    }

    /// The record of a file, fetched if it isn't here.
    ///
    /// - Parameter keep: puts content into the store, and answers its record.
    /// - Throws: `M_NOT_FOUND`, or what tells that the server can't be asked.
    func record(
        _ mediaID: String, of server: ServerName, mostBytes: Int, wait: Int64,
        keep:
            @escaping @Sendable (_ content: ArraySlice<UInt8>, _ type: String?, _ name: String?) async throws
            -> MediaRecord
    ) async throws -> MediaRecord {
        let nid = try await database.number(ofServer: server)
        if let known = try await database.remoteMedia(mediaID, of: nid) { return known }
        let key = "\(server)/\(mediaID)"
        let task = running.withLock { running in
            if let task = running[key] { return task }
            let task = Task {
                defer { self.running.withLock { $0[key] = nil } }
                let record = try await self.fetch(mediaID, of: server, mostBytes: mostBytes, wait: wait, keep: keep)
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

    private func fetch(
        _ mediaID: String, of server: ServerName, mostBytes: Int, wait: Int64,
        keep: @Sendable (ArraySlice<UInt8>, String?, String?) async throws -> MediaRecord
    ) async throws -> MediaRecord {
        let query = [("timeout_ms", String(min(max(wait, 0), 60_000)))]
        do {
            let answer = try await client.ask(
                "GET", FederationClient.path("/_matrix/federation/v1/media/download", mediaID, query: query), nil,
                server, timeout: Self.timeout, mostBytes: mostBytes + 65_536)
            guard let media = MultipartMedia(answer.body, contentType: answer.header("content-type")) else {
                throw FederationFailure(server: server, status: answer.status, reason: "it sends no file")
            }
            switch media.content {
            case .bytes(let range):
                guard range.count <= mostBytes else { throw Self.tooLarge }
                return try await keep(answer.body[range], media.contentType, media.fileName)
            case .location(let url):
                let file = try await client.transport.get(url, timeout: Self.timeout, mostBytes: mostBytes)
                guard file.status == 200 else { throw MediaService.none }
                return try await keep(file.body[...], media.contentType ?? file.header("content-type"), media.fileName)
            }
        } catch let failure as FederationFailure where failure.code == "M_UNRECOGNIZED" || failure.status == 404 {
            return try await fetchAsBefore(mediaID, of: server, mostBytes: mostBytes, keep: keep)
        } catch let failure as FederationFailure {
            throw failure.clientError
        } catch let error as TransportError {
            throw MatrixError(.unknown, "The file can't be fetched: \(error).", status: 502)
        }
    }

    /// Servers from before version 1.11 of the specification serve files to everybody.
    private func fetchAsBefore(
        _ mediaID: String, of server: ServerName, mostBytes: Int,
        keep: @Sendable (ArraySlice<UInt8>, String?, String?) async throws -> MediaRecord
    ) async throws -> MediaRecord {
        let path = FederationClient.path(
            "/_matrix/media/v3/download", server.string, mediaID, query: [("allow_remote", "false")])
        do {
            let answer = try await client.ask(
                "GET", path, nil, server, isSigned: false, timeout: Self.timeout, mostBytes: mostBytes)
            let name = answer.header("content-disposition").flatMap(MultipartMedia.fileName)
            return try await keep(answer.body[...], answer.header("content-type"), name)
        } catch let failure as FederationFailure {
            throw failure.status == 404 ? MediaService.none : failure.clientError
        }
    }

    private static let tooLarge = MatrixError.tooLarge("The file is larger than files may be here.")
}
