import Database
import MatrixCore

/// The members by whom a room is called that has no name (Client-Server API, "Calculating the display name for a room").
enum RoomHeroes {
    /// Members that name a room which has no name.
    private static let most = 5

    /// Those who are in the room or invited, else those who were; never the reader.
    static func find(
        in room: RoomNID, for user: UserNID, _ database: Database, _ reader: any Reader
    ) async throws -> [UserNID] {
        var found: [UserNID] = []
        for group: [StoredMembership] in [[.join, .invite], [.leave, .ban]] where found.isEmpty {
            for membership in group where found.count < most {
                found += try await database.users(in: room, membership, limit: most + 1, reader).filter { $0 != user }
            }
        }
        return Array(found.prefix(most))
    }
}
