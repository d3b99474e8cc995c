import Database
import MatrixCore

/// Receipts as the content of an `m.receipt` event (Client-Server API, "Receipts").
enum ReceiptContent {
    /// The place of a receipt in a content, of which there is one.
    private struct Place: Hashable {
        let event: ByteString
        let type: ByteString
        let user: UserNID
    }

    /// A content, by events and types.
    private typealias Sheet = [ByteString: [ByteString: JSONObject]]

    /// The contents of as many events as are needed: one has place for one receipt of a user and type on an event, and there
    /// may be one in a thread besides that of no thread. The latter come first: they go for the threads, too.
    static func contents(_ receipts: [StoredReceipt], _ database: Database) async throws -> [JSON] {
        if receipts.isEmpty { return [] }
        let names = try await database.users(receipts.map(\.user))
        var sheets: [Sheet] = []
        /// How many receipts have come for a place: each stands on a sheet of its own.
        var taken: [Place: Int] = [:]
        for receipt in receipts.filter(\.thread.isEmpty) + receipts.filter({ !$0.thread.isEmpty }) {
            guard let user = names[receipt.user] else { continue }
            var data: JSON = ["ts": .integer(receipt.timestamp)]
            if !receipt.thread.isEmpty { data["thread_id"] = .string(receipt.thread) }
            let place = Place(
                event: ByteString(receipt.eventID), type: ByteString(receipt.type), user: receipt.user)
            let index = taken[place, default: 0]
            taken[place] = index + 1
            if index == sheets.count { sheets.append([:]) }
            sheets[index][place.event, default: [:]][place.type, default: JSONObject()][user.string] = data
        }
        return sheets.map { sheet in
            .object(
                JSONObject(
                    sheet.map { event, types in
                        (event.string, .object(JSONObject(types.map { ($0.key.string, .object($0.value)) })))
                    }))
        }
    }
}

extension StoredReceipt {
    /// Whether somebody may know of it: private ones are only their owner's business.
    func isShown(to user: UserNID) -> Bool { type != "m.read.private" || self.user == user }
}
