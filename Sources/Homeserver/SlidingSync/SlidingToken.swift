import Database

/// Where a connection of sliding sync has come to:
/// `ss1-<epoch>-<connection>-<generation>-<position>-<run>-<ephemeral>-<extensions>`, and `-f<digest>` of the fields of profiles that were
/// asked for, and how far sticky events are told where more wait. Clients treat it as opaque.
///
/// What was told of rooms stands in the database under connection and generation. All else follows from the position, as in
/// ``SyncToken``, so that an answer which tells of no room writes nothing.
struct SlidingToken: Sendable, Equatable {
    /// The extensions that were told up to the position. One that isn't among them begins anew.
    struct Extensions: OptionSet, Sendable {
        let rawValue: Int64

        static let accountData = Extensions(rawValue: 1)
        static let typing = Extensions(rawValue: 2)
        static let encryption = Extensions(rawValue: 4)
        static let threadSubscriptions = Extensions(rawValue: 8)
        static let profiles = Extensions(rawValue: 16)
        static let stickyEvents = Extensions(rawValue: 32)
    }

    var connection: Int64
    var generation: Int64
    /// Epoch, position, run and ephemeral, as in a token of `/sync`.
    var place: SyncToken
    var extensions: Extensions
    /// A digest of the fields of profiles that are told up to the position; 0: all of them, or none.
    var profileFields: Int64

    var text: String {
        "ss1-\(place.epoch)-\(connection)-\(generation)-\(place.position)-\(place.runText)-\(place.ephemeral)-\(extensions.rawValue)"
            + (profileFields == 0 ? "" : "-f\(profileFields)") + (place.sticky.map { "-\($0.text)" } ?? "")
    }

    init(
        connection: Int64, generation: Int64, place: SyncToken, extensions: Extensions, profileFields: Int64 = 0
    ) {
        self.profileFields = profileFields
        self.connection = connection
        self.generation = generation
        self.place = place
        self.extensions = extensions
    }

    init?(_ text: String) {
        var parts = text.split(separator: "-", omittingEmptySubsequences: false)
        let sticky = parts.last.flatMap { StickyDelivery.Place($0) }
        if sticky != nil { parts.removeLast() }
        var fields: Int64 = 0
        if parts.count == 9 {
            guard let part = parts.popLast(), part.hasPrefix("f"), let number = Int64(part.dropFirst()) else {
                return nil
            }
            fields = number
        }
        guard parts.count == 8, parts[0] == "ss1", let connection = Int64(parts[2]), let generation = Int64(parts[3]),
            let position = Int64(parts[4]), let ephemeral = Int64(parts[6]), let extensions = Int64(parts[7]),
            position >= 0, ephemeral >= 0
        else { return nil }
        var place = SyncToken(epoch: String(parts[1]), position: position, run: "", ephemeral: ephemeral)
        guard place.readRuns(parts[5]) else { return nil }
        self.init(
            connection: connection, generation: generation, place: place,
            extensions: Extensions(rawValue: extensions), profileFields: fields)
        self.place.sticky = sticky
    }
}

extension SyncToken {
    /// The position that a token of either way of syncing stands for; nil if it is neither.
    static func position(of text: String) -> Int64? {
        SyncToken(text)?.position ?? SlidingToken(text)?.place.position
    }
}
