import Homeserver
import MatrixCore

/// Account data and tags (Client-Server API, modules "Client Config", "Room Tagging").
extension ClientAPI {
    var accountDataEndpoints: [Endpoint] {
        let user = "/_matrix/client/{version:v3|r0}/user/{userId}"
        let paths = [
            PathPattern("\(user)/account_data/{type}"), PathPattern("\(user)/rooms/{roomId}/account_data/{type}"),
        ]
        return [
            Endpoint(.GET, paths, authentication: .accessToken) { request in
                .json(
                    try await self.homeserver.accountData.get(
                        request["type"], in: try request.optionalRoomID(), for: try request.own()))
            },
            Endpoint(.PUT, paths, authentication: .accessToken) { request in
                let requester = try request.own()
                let content = try await request.json().root
                try await self.homeserver.accountData.set(
                    request["type"], to: content, in: try request.optionalRoomID(), for: requester)
                return .empty
            },
            Endpoint(.GET, PathPattern("\(user)/rooms/{roomId}/tags"), authentication: .accessToken) { request in
                let tags = try await self.homeserver.accountData.tags(of: try request.roomID(), for: try request.own())
                return .json(["tags": .object(tags)])
            },
            Endpoint(.PUT, PathPattern("\(user)/rooms/{roomId}/tags/{tag}"), authentication: .accessToken) { request in
                let requester = try request.own()
                let content = try await request.json(emptyIsObject: true).root
                if let order = content["order"], order.double == nil {
                    throw MatrixError.badJSON("“order” must be a number.")
                }
                try await self.homeserver.accountData.setTag(
                    request["tag"], to: content.json, of: try request.roomID(), for: requester)
                return .empty
            },
            Endpoint(.DELETE, PathPattern("\(user)/rooms/{roomId}/tags/{tag}"), authentication: .accessToken) {
                request in
                try await self.homeserver.accountData.setTag(
                    request["tag"], to: nil, of: try request.roomID(), for: try request.own())
                return .empty
            },
        ]
    }
}

extension Request {
    /// The room in the path, where the path has one.
    fileprivate func optionalRoomID() throws -> RoomID? { self["roomId"].isEmpty ? nil : try roomID() }
}
