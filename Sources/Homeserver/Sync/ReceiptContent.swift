import Database
import MatrixCore

/// Receipts as the content of an `m.receipt` event (Client-Server API, "Receipts").
enum ReceiptContent {
    /// The contents of as many events as are needed: one has place for one receipt of a user and type on an event, and there
    /// may be one in a thread besides that of no thread. The latter come first: they go for the threads, too.
    static func contents(_ receipts: [StoredReceipt], _ database: Database) async throws -> [JSON] {
        if receipts.isEmpty { return [] }
        let names = try await database.users(receipts.map(\.user))
        var contents: [JSON] = []
        for receipt in receipts.filter(\.thread.isEmpty) + receipts.filter({ !$0.thread.isEmpty }) {
            guard let user = names[receipt.user] else { continue }
            var data: JSON = ["ts": .integer(receipt.timestamp)]
            if !receipt.thread.isEmpty { data["thread_id"] = .string(receipt.thread) }
            let place = contents.firstIndex { $0[receipt.eventID]?[receipt.type]?[user.string] == nil }
            if place == nil { contents.append([:]) }
            let index = place ?? contents.count - 1
            var types = contents[index][receipt.eventID] ?? [:]
            var users = types[receipt.type] ?? [:]
            users[user.string] = data
            types[receipt.type] = users
            contents[index][receipt.eventID] = types
        }
        return contents
    }
}

extension StoredReceipt {
    /// Whether somebody may know of it: private ones are only their owner's business.
    func isShown(to user: UserNID) -> Bool { type != "m.read.private" || self.user == user }
}
