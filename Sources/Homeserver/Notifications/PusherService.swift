import Database
import MatrixCore

/// The ways to users' devices that their clients set (Client-Server API, "Push Notifications", `/pushers`).
public final class PusherService: Sendable {
    private let database: Database
    private let surroundings: Surroundings

    init(database: Database, surroundings: Surroundings) {
        self.database = database
        self.surroundings = surroundings
    }

    /// Pushers of one user: each is told of every notification.
    private static let most = 100
    /// Characters of an app ID, and bytes of a pushkey (the specification's), of each other text, and of `data`.
    private static let longestAppID = 64
    private static let longestPushkey = 512
    private static let longestText = 1_024
    private static let longestData = 16_384

    /// What `GET /pushers` answers.
    public func pushers(of requester: Requester) async throws -> JSON {
        let pushers = try await database.pushers(of: requester.nid)
        return ["pushers": .array(try pushers.map { try JSONDocument(parsing: $0.json, limits: .own).root.json })]
    }

    /// Makes, changes or deletes a pusher, as the body of `POST /pushers/set` says.
    public func set(_ body: JSONView, for requester: Requester) async throws {
        let appID = try body.requiredString("app_id")
        let pushkey = try body.requiredString("pushkey")
        guard appID.count <= Self.longestAppID else {
            throw MatrixError.invalidParam("“app_id” has at most \(Self.longestAppID) characters.")
        }
        guard pushkey.utf8.count <= Self.longestPushkey else {
            throw MatrixError.invalidParam("“pushkey” has at most \(Self.longestPushkey) bytes.")
        }
        guard let kind = body["kind"] else { throw MatrixError.missingParam("kind") }
        try Self.checkTypes(body)
        var write = Write()
        if kind.isNull {
            write.deletePusher(pushkey, appID: appID, of: requester.nid)
        } else {
            let json = try Self.pusher(body, appID, pushkey)
            let isOnlyOne = try body.optionalBool("append") != true
            let known = try await database.pushers(of: requester.nid)
            let isKnown = known.contains {
                $0.appID.hasSameBytes(as: appID) && $0.pushkey.hasSameBytes(as: pushkey)
            }
            guard isKnown || known.count < Self.most else {
                throw MatrixError(.resourceLimitExceeded, "You have \(Self.most) pushers; delete one first.")
            }
            write.put(
                Pusher(
                    user: requester.nid, appID: appID, pushkey: pushkey, deviceID: requester.deviceID,
                    json: json.encoded()),
                onlyOne: isOnlyOne, at: surroundings.now())
        }
        try await database.write(write)
    }

    /// - Throws: `M_BAD_JSON`, `M_INVALID_PARAM` for members of wrong types, also where they aren't needed.
    private static func checkTypes(_ body: JSONView) throws {
        for name in ["kind", "app_display_name", "device_display_name", "lang", "profile_tag"] {
            _ = try body.optionalString(name)
        }
        _ = try body.optionalBool("append")
        let data = try body.optionalObject("data")
        _ = try data?.optionalString("url")
        if let format = try data?.optionalString("format"), format != "event_id_only" {
            throw MatrixError.invalidParam("“format” can only be event_id_only.")
        }
    }

    /// The pusher that a body describes, as clients are told of it.
    private static func pusher(_ body: JSONView, _ appID: String, _ pushkey: String) throws -> JSON {
        guard try body.optionalString("kind") == "http" else {
            throw MatrixError.invalidParam("This server knows pushers of the kind “http” only.")
        }
        var pusher: JSONObject = ["app_id": .string(appID), "pushkey": .string(pushkey), "kind": "http"]
        for name in ["app_display_name", "device_display_name", "lang"] {
            pusher[name] = .string(try body.requiredString(name))
        }
        pusher["profile_tag"] = try body.optionalString("profile_tag").map { .string($0) }
        for (name, value) in pusher where (value.stringValue?.utf8.count ?? 0) > longestText {
            throw MatrixError.invalidParam("“\(name)” has at most \(longestText) bytes.")
        }
        guard let data = try body.optionalObject("data") else { throw MatrixError.missingParam("data") }
        guard let url = try data.optionalString("url") else { throw MatrixError.missingParam("data.url") }
        guard isGateway(url) else {
            throw MatrixError.invalidParam("“url” must be an https URL with the path /_matrix/push/v1/notify.")
        }
        guard data.raw.count <= longestData else {
            throw MatrixError.invalidParam("“data” has at most \(longestData) bytes.")
        }
        pusher["data"] = data.json
        return .object(pusher)
    }

    private static func isGateway(_ url: String) -> Bool {
        let scheme = "https://", path = "/_matrix/push/v1/notify"
        guard url.lowercased().hasPrefix(scheme) else { return false }
        let rest = url.dropFirst(scheme.count)
        guard let start = rest.firstIndex(of: "/"), start > rest.startIndex else { return false }
        return rest[start...].prefix { $0 != "?" && $0 != "#" } == path
    }
}
