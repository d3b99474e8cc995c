import Homeserver
import MatrixCore

/// Making rooms (Client-Server API, "Creation").
extension ClientAPI {
    var roomCreationEndpoints: [Endpoint] {
        [
            Endpoint(
                .POST, "/_matrix/client/{version:v3|r0}/createRoom", authentication: .accessToken, rateLimit: .join,
                handler: createRoom)
        ]
    }

    private func createRoom(_ request: Request) async throws -> Response {
        let body = try await request.json(emptyIsObject: true).root
        var wanted = RoomCreationService.Request()
        if let preset = try body.optionalString("preset") {
            guard let known = RoomCreationService.Preset(rawValue: preset) else {
                throw MatrixError.badJSON("“\(preset)” is not a preset.")
            }
            wanted.preset = known
        }
        switch try body.optionalString("visibility") {
        case nil, "private": break
        case "public": wanted.isPublished = true
        default: throw MatrixError.badJSON("“visibility” must be public or private.")
        }
        wanted.aliasName = try body.optionalString("room_alias_name")
        wanted.name = try body.optionalString("name")
        wanted.topic = try body.optionalString("topic")
        wanted.invites = try (body.optionalStrings("invite") ?? []).map { try UserID.parse($0) }
        if let others = try body.optionalArray("invite_3pid"), !others.isEmpty {
            throw MatrixError(.threepidDenied, "This server can't invite by e-mail address or telephone number.")
        }
        wanted.roomVersion = try body.optionalString("room_version")
        wanted.creationContent = try body.optionalObject("creation_content")?.json.objectValue ?? [:]
        wanted.powerLevels = try body.optionalObject("power_level_content_override")?.json.objectValue ?? [:]
        wanted.isDirect = try body.optionalBool("is_direct") ?? false
        wanted.initialState = try (body.optionalArray("initial_state") ?? []).map { state in
            guard state.isObject, let content = try state.optionalObject("content") else {
                throw MatrixError.badJSON("Each entry of “initial_state” must have a “type” and a “content”.")
            }
            return .init(
                key: StateKey(try state.requiredString("type"), try state.optionalString("state_key") ?? ""),
                content: content.json)
        }
        let room = try await homeserver.creation.create(wanted, by: try request.authenticated())
        return .json(["room_id": .string(room.string)])
    }
}
