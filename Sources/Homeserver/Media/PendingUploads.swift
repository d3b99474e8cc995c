import Database
import MatrixCore

/// Media IDs that are given out before their content comes (Client-Server API, `POST /_matrix/media/v1/create`).
extension MediaService {
    /// A day, as the specification recommends.
    private static let pendingLifetime: Int64 = 24 * 3_600_000
    /// Pending uploads of a user at a time.
    static let mostPending = 20
    /// The longest that a download waits for its content, in milliseconds.
    private static let longestWait: Int64 = 60_000

    /// Gives out an `mxc:` URI whose content comes later.
    ///
    /// - Throws: `M_LIMIT_EXCEEDED` if too many contents of the user are still to come.
    public func create(by requester: Requester) async throws -> (uri: String, expiresTS: Int64) {
        let mediaID = surroundings.randomText(24), now = surroundings.now()
        let expires = now + Self.pendingLifetime
        var write = Write()
        write.insertPendingMedia(
            mediaID, of: requester.nid, expires: expires, now: now, most: Self.mostPending)
        do {
            try await database.write(write)
        } catch DatabaseError.conflict {
            let next = try await database.pendingMedia(of: requester.nid, at: now).first ?? now
            throw MatrixError(
                .limitExceeded, "You have \(Self.mostPending) uploads that were begun; finish some of them first.",
                retryAfterMS: Int(max(next - now, 1_000)))
        }
        return ("mxc://\(serverName)/\(mediaID)", expires)
    }

    /// Sees whether a user may still upload the content of a media ID.
    ///
    /// - Throws: `M_CANNOT_OVERWRITE_MEDIA` if it has content, `M_NOT_FOUND` if it was never given out or is over,
    ///   `M_FORBIDDEN` if somebody else asked for it.
    public func checkPending(server: String, mediaID: String, by requester: Requester) async throws {
        guard server == serverName.string, Self.isMediaID(mediaID) else { throw Self.none }
        if try await database.media(mediaID) != nil { throw Self.hasContent }
        guard let pending = try await database.pendingMedia(mediaID), pending.expiresTS > surroundings.now() else {
            throw Self.none
        }
        guard pending.user == requester.nid else {
            throw MatrixError.forbidden("Somebody else is about to upload this file.")
        }
    }

    static let hasContent = MatrixError(.cannotOverwriteMedia, "There is a file at this place already.")

    /// A file that is there, or comes within the time that the client is willing to wait.
    ///
    /// - Throws: `M_NOT_FOUND`, `M_NOT_YET_UPLOADED`.
    func record(of mediaID: String, wait: Int64) async throws -> MediaRecord {
        if let record = try await database.media(mediaID) { return record }
        let deadline = surroundings.now() + min(max(wait, 0), Self.longestWait)
        while true {
            guard let pending = try await database.pendingMedia(mediaID) else {
                // It may have come between the two looks.
                guard let record = try await database.media(mediaID) else { throw Self.none }
                return record
            }
            let waiter = notifier.register(pending.user, rooms: [])
            defer { notifier.remove(waiter) }
            if let record = try await database.media(mediaID) { return record }
            let now = surroundings.now()
            guard pending.expiresTS > now else { throw Self.none }
            let left = min(deadline, pending.expiresTS) - now
            guard left > 0, !notifier.isDraining else {
                throw MatrixError(.notYetUploaded, "This file has not been uploaded yet; try again in a while.")
            }
            try await waiter.wait(atMost: left, by: surroundings)
        }
    }
}
