import Database
import Homeserver
import MatrixCore

/// Backups of room keys (Client-Server API, "Server-side key backups").
extension ClientAPI {
    /// Ten thousand keys, each with a kilobyte or two.
    static let keyBackupLimit = 32 << 20

    private static let roomKeys = "/_matrix/client/{version:v3|r0|unstable}/room_keys"

    var keyBackupEndpoints: [Endpoint] { backupVersionEndpoints + backupKeyEndpoints }

    private var backupVersionEndpoints: [Endpoint] {
        let version = PathPattern("\(Self.roomKeys)/version/{backup}")
        return [
            Endpoint(.POST, PathPattern("\(Self.roomKeys)/version"), authentication: .accessToken) { request in
                let body = try await request.json().root
                let (algorithm, authData) = try Self.backup(body)
                return .json([
                    "version": .string(
                        try await self.homeserver.keyBackups.create(
                            algorithm: algorithm, authData: authData, for: try request.authenticated()))
                ])
            },
            Endpoint(.GET, PathPattern("\(Self.roomKeys)/version"), authentication: .accessToken) { request in
                .json(try await self.homeserver.keyBackups.info(nil, for: try request.authenticated()))
            },
            Endpoint(.GET, version, authentication: .accessToken) { request in
                .json(try await self.homeserver.keyBackups.info(request["backup"], for: try request.authenticated()))
            },
            Endpoint(.PUT, version, authentication: .accessToken) { request in
                let body = try await request.json().root
                let (algorithm, authData) = try Self.backup(body)
                try await self.homeserver.keyBackups.update(
                    request["backup"], algorithm: algorithm, authData: authData,
                    bodyVersion: try body.optionalString("version"), for: try request.authenticated())
                return .empty
            },
            Endpoint(.DELETE, version, authentication: .accessToken) { request in
                try await self.homeserver.keyBackups.delete(request["backup"], for: try request.authenticated())
                return .empty
            },
        ]
    }

    private static func backup(_ body: JSONView) throws -> (algorithm: String, authData: JSONView) {
        let algorithm = try body.requiredString("algorithm")
        guard let authData = try body.optionalObject("auth_data") else { throw MatrixError.missingParam("auth_data") }
        return (algorithm, authData)
    }

    private var backupKeyEndpoints: [Endpoint] {
        let paths = [
            PathPattern("\(Self.roomKeys)/keys"), PathPattern("\(Self.roomKeys)/keys/{roomId}"),
            PathPattern("\(Self.roomKeys)/keys/{roomId}/{sessionId}"),
        ]
        return [
            Endpoint(.PUT, paths, authentication: .accessToken) { request in
                let body = try await request.json(upTo: Self.keyBackupLimit).root
                let version = try request.backupVersion()
                let selection = try request.roomKeySelection()
                let keys =
                    switch selection {
                    case .all: try KeyBackupService.keys(body)
                    case .room(let room): try KeyBackupService.keys(body, room: room)
                    case .session(let room, let session):
                        [try KeyBackupService.key(body, room: room, session: session)]
                    }
                return .json(
                    try await self.homeserver.keyBackups.put(keys, version: version, for: try request.authenticated())
                        .json)
            },
            Endpoint(.GET, paths, authentication: .accessToken) { request in
                .json(
                    try await self.homeserver.keyBackups.get(
                        try request.roomKeySelection(), version: try request.backupVersion(),
                        for: try request.authenticated()))
            },
            Endpoint(.DELETE, paths, authentication: .accessToken) { request in
                .json(
                    try await self.homeserver.keyBackups.delete(
                        try request.roomKeySelection(), version: try request.backupVersion(),
                        for: try request.authenticated()
                    ).json)
            },
        ]
    }
}

extension Request {
    fileprivate func backupVersion() throws -> String {
        guard let version = query["version"] else { throw MatrixError.missingParam("version") }
        return version
    }

    /// What the path names.
    fileprivate func roomKeySelection() throws -> RoomKeySelection {
        if self["roomId"].isEmpty { return .all }
        let room = try roomID().string
        return self["sessionId"].isEmpty ? .room(room) : .session(room: room, session: self["sessionId"])
    }
}

extension KeyBackupService.State {
    fileprivate var json: JSON { ["count": .integer(count), "etag": .string(etag)] }
}
