import Database
import MatrixCore

/// What a client may set as a room's main alias and its alternatives (Client-Server API, `m.room.canonical_alias`; `PUT
/// /rooms/{roomId}/state/{eventType}/{stateKey}`).
struct CanonicalAlias: Sendable {
    let database: Database
    let serverName: ServerName
    /// Where aliases of other servers point to, as those say.
    var elsewhere: [RoomAlias: RoomID] = [:]

    /// The aliases of other servers that content names.
    static func others(in content: JSON, than serverName: ServerName) -> [RoomAlias] {
        texts(content).compactMap { RoomAlias($0) }.filter { $0.server != serverName }
    }

    /// - Parameter before: the content that is to be replaced; what was there is not looked up again, so that an alias that has
    ///   gone doesn't keep another one from being added.
    /// - Throws: `M_INVALID_PARAM` for what is no alias, `M_BAD_ALIAS` for one that doesn't point to the room.
    func check(_ content: JSON, replacing before: JSONView?, in room: RoomNID, _ roomID: RoomID) async throws {
        let known = Set(Self.texts(before?.json ?? [:]).map { ByteString($0) })
        let main = content["alias"] ?? .null, others = content["alt_aliases"] ?? .null
        guard main == .null || main.stringValue != nil, others == .null || others.arrayValue != nil,
            others.arrayValue?.allSatisfy({ $0.stringValue != nil }) ?? true
        else {
            throw MatrixError.invalidParam("“alias” must be a room alias, and “alt_aliases” an array of them.")
        }
        for text in Self.texts(content) where !known.contains(ByteString(text)) {
            guard let alias = RoomAlias(text) else { throw MatrixError.invalidParam("“\(text)” is not a room alias.") }
            let isOfRoom =
                alias.server == serverName
                ? try await database.room(ofAlias: alias)?.room == room : elsewhere[alias] == roomID
            guard isOfRoom else {
                throw MatrixError(.badAlias, "\(alias) doesn't point to this room.")
            }
        }
    }

    private static func texts(_ content: JSON) -> [String] {
        // An empty main alias is none.
        let main = content["alias"]?.stringValue.flatMap { $0.isEmpty ? nil : $0 }
        return [main].compactMap { $0 } + (content["alt_aliases"]?.arrayValue ?? []).compactMap(\.stringValue)
    }
}
