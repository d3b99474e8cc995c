import Database
import MatrixCore

/// Receipts as the content of an `m.receipt` event (Client-Server API, "Receipts").
enum ReceiptContent {
    /// nil where there are none.
    static func json(_ receipts: [StoredReceipt], _ database: Database) async throws -> JSON? {
        if receipts.isEmpty { return nil }
        let names = try await database.users(receipts.map(\.user))
        var content: JSON = [:]
        for receipt in receipts {
            guard let user = names[receipt.user] else { continue }
            var data: JSON = ["ts": .integer(receipt.timestamp)]
            if !receipt.thread.isEmpty { data["thread_id"] = .string(receipt.thread) }
            var types = content[receipt.eventID] ?? [:]
            var users = types[receipt.type] ?? [:]
            users[user.string] = data
            types[receipt.type] = users
            content[receipt.eventID] = types
        }
        return content
    }
}

extension StoredReceipt {
    /// Whether somebody may know of it: private ones are only their owner's business.
    func isShown(to user: UserNID) -> Bool { type != "m.read.private" || self.user == user }
}
