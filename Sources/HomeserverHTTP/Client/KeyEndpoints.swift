import Database
import Homeserver
import MatrixCore

/// Keys of devices and users (Client-Server API, "End-to-End Encryption": "Key management API", "Cross-signing").
extension ClientAPI {
    var keyEndpoints: [Endpoint] {
        let keys = "/_matrix/client/{version:v3|r0}/keys"
        return [
            Endpoint(.POST, PathPattern("\(keys)/upload"), authentication: .accessToken) { request in
                let counts = try await self.homeserver.deviceKeys.upload(
                    try await request.json().root, for: try request.authenticated())
                return .json([
                    "one_time_key_counts": .object(
                        JSONObject(DeviceKeyCounts.shown(counts).map { ($0.algorithm, .integer(Int64($0.count))) }))
                ])
            },
            Endpoint(.POST, PathPattern("\(keys)/query"), authentication: .accessToken) { request in
                let body = try await request.json().root
                let timeout = try body.optionalInteger("timeout") ?? DeviceKeyService.usualTimeout
                guard let asked = try body.optionalObject("device_keys") else {
                    throw MatrixError.missingParam("device_keys")
                }
                return .json(
                    try await self.homeserver.deviceKeys.query(
                        asked, timeout: timeout, for: try request.authenticated()))
            },
            Endpoint(.POST, PathPattern("\(keys)/claim"), authentication: .accessToken) { request in
                let body = try await request.json().root
                let timeout = try body.optionalInteger("timeout") ?? DeviceKeyService.usualTimeout
                guard let asked = try body.optionalObject("one_time_keys") else {
                    throw MatrixError.missingParam("one_time_keys")
                }
                return .json(try await self.homeserver.deviceKeys.claim(asked, timeout: timeout))
            },
            Endpoint(.GET, PathPattern("\(keys)/changes"), authentication: .accessToken) { request in
                guard let from = request.query["from"] else { throw MatrixError.missingParam("from") }
                guard let to = request.query["to"] else { throw MatrixError.missingParam("to") }
                let since = try await self.homeserver.sync.position(of: from)
                _ = try await self.homeserver.sync.position(of: to)
                return .json(
                    try await self.homeserver.deviceLists.changes(since: since, for: try request.authenticated()).json)
            },
            Endpoint(
                .POST, "/_matrix/client/{version:v3|r0|unstable}/keys/device_signing/upload",
                authentication: .accessToken
            ) { request in
                try await Self.answer(
                    self.homeserver.crossSigning.upload(
                        try await request.json().root, for: try request.authenticated()))
            },
            Endpoint(
                .POST, "/_matrix/client/{version:v3|r0|unstable}/keys/signatures/upload", authentication: .accessToken
            ) { request in
                let failures = try await self.homeserver.crossSigning.sign(
                    try await request.json().root, for: try request.authenticated())
                return .json(["failures": .object(failures)])
            },
        ]
    }
}
