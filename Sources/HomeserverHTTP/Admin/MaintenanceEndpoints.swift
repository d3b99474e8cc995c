import Homeserver
import MatrixCore

/// The command line's look after database and media while the server runs: `roost db check`, `roost backup`, `roost media purge`.
public enum MaintenanceEndpoints {
    public static func all(_ service: MaintenanceService, keys: SigningKeys, media: RemoteMediaPurging) -> [Endpoint] {
        [
            Endpoint(
                .POST, "/_roost/admin/v1/keys/rotate", api: .local, authentication: .localSocket, rateLimit: .none
            ) { _ in .json(["key_id": .string(try await keys.rotate())]) },
            Endpoint(
                .POST, "/_roost/admin/v1/media/purge", api: .local, authentication: .localSocket, rateLimit: .none
            ) { request in
                guard let time = try await request.json().root["fetched_before"]?.integer else {
                    throw MatrixError.missingParam("fetched_before")
                }
                let summary = try await media.purge(fetchedBefore: time)
                return .json(["files": .integer(Int64(summary.files)), "bytes": .integer(summary.bytes)])
            },
            Endpoint(
                .POST, "/_roost/admin/v1/database/check", api: .local, authentication: .localSocket, rateLimit: .none
            ) { _ in
                let report = try await service.check()
                return .json([
                    "problems": .array(report.problems.map { .string($0) }), "count": .integer(Int64(report.count)),
                    "rooms": .integer(Int64(report.rooms)), "events": .integer(Int64(report.events)),
                ])
            },
            Endpoint(
                .POST, "/_roost/admin/v1/database/backup", api: .local, authentication: .localSocket, rateLimit: .none
            ) { request in
                let directory = try await request.json().root.requiredString("directory")
                let summary = try await service.backUp(to: directory)
                return .json([
                    "rooms": .integer(Int64(summary.rooms)), "events": .integer(Int64(summary.events)),
                    "media_files": .integer(Int64(summary.mediaFiles)),
                    "missing_media": .integer(Int64(summary.missingMedia)),
                ])
            },
        ]
    }
}
