import Database
import Homeserver
import MatrixCore

/// The directory of published rooms (Client-Server API, "Published room directory").
extension ClientAPI {
    var publishedRoomEndpoints: [Endpoint] {
        let list: PathPattern = "/_matrix/client/{version:v3|r0}/publicRooms"
        let room: PathPattern = "/_matrix/client/{version:v3|r0}/directory/list/room/{roomId}"
        return [
            Endpoint(.GET, list, authentication: .optionalAccessToken) { request in
                let limit = try request.integer("limit").map { Int(clamping: $0) }
                let wanted = DirectoryService.PublishedRoomsRequest(
                    limit: limit, since: request.query["since"], searchTerm: nil, roomTypes: nil)
                if let server = try self.otherServer(request) {
                    return .json(try await self.homeserver.directory.publishedRooms(wanted, of: server))
                }
                return .json(try await self.homeserver.directory.publishedRooms(wanted))
            },
            Endpoint(.POST, list, authentication: .accessToken, onlyReads: true, handler: search),
            Endpoint(.GET, room, authentication: .optionalAccessToken) { request in
                let isPublished = try await self.homeserver.directory.isPublished(try request.roomID())
                return .json(["visibility": isPublished ? "public" : "private"])
            },
            Endpoint(.PUT, room, authentication: .accessToken) { request in
                let isPublished = try await request.visibility()
                try await self.homeserver.directory.setPublished(
                    isPublished, try request.roomID(), by: try request.authenticated())
                return .empty
            },
        ]
    }

    /// The server whose rooms are asked for; nil for this one.
    private func otherServer(_ request: Request) throws -> ServerName? {
        guard let text = request.query["server"], text != homeserver.configuration.serverName.string else { return nil }
        guard let server = ServerName(text) else { throw MatrixError.invalidParam("“server” is not a server's name.") }
        return server
    }

    private func search(_ request: Request) async throws -> Response {
        let wanted = try DirectoryService.PublishedRoomsRequest(try await request.json(emptyIsObject: true).root)
        if let server = try otherServer(request) {
            return .json(try await homeserver.directory.publishedRooms(wanted, of: server))
        }
        return .json(try await homeserver.directory.publishedRooms(wanted))
    }

}

extension DirectoryService.PublishedRoomsRequest {
    /// A search, as clients and other servers send it alike (`POST /publicRooms`).
    init(_ body: JSONView) throws {
        let filter = try body.optionalObject("filter")
        let types: [String?]? = try filter?.optionalArray("room_types")?.map { type in
            guard type.isNull || type.string != nil else {
                throw MatrixError.badJSON("“room_types” must hold strings or null.")
            }
            return type.string
        }
        self.init(
            limit: try body.optionalInteger("limit").map { Int(clamping: $0) },
            since: try body.optionalString("since"),
            searchTerm: try filter?.optionalString("generic_search_term"), roomTypes: types,
            lists: try PublishedLists(
                all: try body.optionalBool("include_all_networks") ?? false,
                instance: try body.optionalString("third_party_instance_id")))
    }
}

extension PublishedLists {
    /// The lists that a search is in. A network's is named by its application service and, behind a bar, the network.
    init(all: Bool, instance: String?) throws {
        guard let instance else {
            self = all ? .all : .own
            return
        }
        guard !all else {
            throw MatrixError.invalidParam("“third_party_instance_id” can't be told together with all networks.")
        }
        let parts = instance.split(separator: "|", maxSplits: 1, omittingEmptySubsequences: false)
        self = parts.count == 2 ? .network(String(parts[1]), of: String(parts[0])) : .network("", of: instance)
    }
}
