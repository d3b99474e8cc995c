import Database
import MatrixCore

/// Filters that clients keep on the server (Client-Server API, "Filtering").
public final class FilterService: Sendable {
    private let database: Database

    /// Bytes of a filter, and filters of a user: nothing ever removes one.
    private static let largest = 64 << 10
    private static let most: Int64 = 1_000

    init(database: Database) { self.database = database }

    /// Keeps a filter after checking it, and returns its ID.
    public func put(_ filter: JSONView, for requester: Requester) async throws -> String {
        _ = try SyncFilter(filter)
        guard let canonical = try? filter.canonical() else {
            throw MatrixError.badJSON("The filter is not canonical JSON.")
        }
        guard canonical.count <= Self.largest else {
            throw MatrixError.tooLarge("A filter may have \(Self.largest) bytes.")
        }
        guard let number = try await database.putFilter(canonical, of: requester.nid, most: Self.most) else {
            throw MatrixError.tooLarge("You have \(Self.most) filters, which can't be more; use one of them.")
        }
        return String(number)
    }

    /// - Throws: `M_NOT_FOUND`.
    public func get(_ filterID: String, for requester: Requester) async throws -> [UInt8] {
        guard let number = Int64(filterID), let filter = try await database.filter(number, of: requester.nid) else {
            throw MatrixError.notFound("There is no such filter.")
        }
        return filter
    }

    /// What a `filter` parameter means: a filter's ID, or a filter itself.
    public func resolve(_ parameter: String?, for requester: Requester) async throws -> SyncFilter {
        guard let parameter else { return .none }
        return try SyncFilter(try await document(parameter, requester).root)
    }

    private func document(_ parameter: String, _ requester: Requester) async throws -> JSONDocument {
        let isInline = parameter.utf8.first == UInt8(ascii: "{")
        let bytes: [UInt8]
        if isInline {
            bytes = Array(parameter.utf8)
        } else {
            guard let number = Int64(parameter), let filter = try await database.filter(number, of: requester.nid)
            else {
                throw MatrixError.invalidParam("There is no filter “\(parameter)”.")
            }
            bytes = filter
        }
        do { return try JSONDocument(parsing: bytes) } catch {
            throw MatrixError.notJSON("The filter is not JSON: \(error)")
        }
    }
}
