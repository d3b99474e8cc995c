import Database
import Logging
import MatrixCore

/// Builds one answer of sliding sync: what a connection's client does not know at a position.
struct SlidingBuilder {
    let service: SlidingSyncService
    let requester: Requester
    let request: SlidingRequest
    /// nil: the connection begins.
    let since: SlidingToken?
    let upTo: SyncToken
    let connection: SlidingConnection
    let now: Int64
    let lists: SlidingLists
    /// Of the rooms that are told of.
    let facts: [RoomNID: RoomFacts]
    /// All rooms that the request's rules match.
    let shownRooms: [RoomNID: SlidingLists.Shown]
    /// When each room that is told of changed last.
    let lastChanges: [RoomNID: Int64]

    var database: Database { service.database }
    var connectionName: String { connection.stored?.connID ?? request.connID }
    var audience: ClientEvents.Audience { ClientEvents.Audience(requester, now: now) }

    /// An answer before it has got its position.
    struct Answer {
        /// The encoded members of `rooms`.
        var rooms: [(room: RoomID, bytes: [UInt8])] = []
        var receipts: [(room: RoomID, content: JSON)] = []
        var extensions = SlidingExtensions()
        /// What is told of rooms that the connection must remember.
        var news: [RoomNID: SentRoom] = [:]
        var quiet: [RoomNID: SlidingConnection.Quiet] = [:]
        /// People whom rooms show that are told for the first time.
        var introduced: Set<UserNID> = []

        var isEmpty: Bool { rooms.isEmpty && receipts.isEmpty && extensions.isEmpty }
    }

    /// A room to look at.
    struct Candidate {
        let shown: SlidingLists.Shown
        let room: Room
        let configNumber: Int64
        let isDirect: Bool
        let wantsReceipts: Bool
    }

    /// Builds what is to be told of rooms, and the extensions.
    ///
    /// - Parameter candidates: the rooms that something may have to be told of.
    func build(_ candidates: [Candidate], _ memberships: [RoomMembership]) async throws -> Answer {
        let devices = try await SlidingExtensions.Devices.read(self, memberships)
        return try await database.read { reader in
            var answer = Answer()
            for candidate in candidates {
                try await self.add(candidate, to: &answer, reader)
            }
            answer.extensions = try await SlidingExtensions.read(
                self, devices, told: answer.news, introducing: answer.introduced, memberships, reader)
            answer.extensions.receipts = answer.receipts
            return answer
        }
    }

    private func add(_ candidate: Candidate, to answer: inout Answer, _ reader: any Reader) async throws {
        let room = candidate.room
        let part = SlidingRoom(
            builder: self, room: room, shown: candidate.shown, sent: connection.rooms[room.nid],
            configNumber: candidate.configNumber, isDirect: candidate.isDirect, wantsReceipts: candidate.wantsReceipts)
        do {
            guard let result = try await part.build(reader) else {
                answer.quiet[room.nid] = .init(
                    upTo: upTo.position, config: candidate.configNumber,
                    limit: candidate.shown.config.timelineLimit)
                return
            }
            if let bytes = result.bytes { answer.rooms.append((room.roomID, bytes)) }
            if let receipts = result.receipts { answer.receipts.append((room.roomID, receipts)) }
            answer.news[room.nid] = result.sent
            if let scope = request.extensions.profiles?.scope, answer.introduced.count < ProfileUpdates.most,
                scope.admits(
                    room.roomID, in: candidate.shown.lists, isSubscribed: candidate.shown.isSubscribed)
            {
                answer.introduced.formUnion(try await part.people(result, reader))
            }
        } catch DatabaseError.corrupt(let reason) {
            // One sick room must not keep its members from all others.
            service.logger.error(
                "a room was left out of a sync", metadata: ["room": "\(room.roomID)", "reason": "\(reason)"])
        }
    }

    /// Writes the answer with its position.
    func encode(
        _ answer: Answer, counts: [(name: String, count: Int)], position: SlidingToken
    ) -> [UInt8] {
        var writer = JSONWriter(capacity: answer.rooms.reduce(1_024) { $0 + $1.bytes.count + 80 })
        writer.beginObject()
        writer.key("pos")
        writer.string(position.text)
        if let transactionID = request.transactionID {
            writer.key("txn_id")
            writer.string(transactionID)
        }
        writer.key("lists")
        writer.beginObject()
        for (name, count) in counts {
            writer.key(name)
            writer.value(["count": .integer(Int64(count))])
        }
        writer.endObject()
        writer.key("rooms")
        writer.beginObject()
        for (room, bytes) in answer.rooms {
            writer.key(room.string)
            writer.raw(bytes)
        }
        writer.endObject()
        writer.key("extensions")
        writer.beginObject()
        answer.extensions.write(into: &writer)
        writer.endObject()
        writer.endObject()
        return writer.bytes
    }
}
