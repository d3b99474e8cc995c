#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// What events have in common, as they are written in canonical JSON. A fragment's number is its place in the list, and is in every
/// database: the list only grows at its end.
enum PackedEventFragments {
    /// The first 31 take one byte, the others two.
    private static let texts: [StaticString] = [
        // Every event.
        #"{"auth_events":["$"#, #"","$"#, #"":""#, #"},"depth":"#, #""},"depth":"#, #","hashes":{"sha256":""#,
        #""},"origin_server_ts":"#, #","prev_events":["$"#, #""],"room_id":"!"#, #"","sender":"@"#,
        #"","signatures":{""#,
        #"":{"ed25519:"#, #""}},"type":"m.room."#, #""}},"state_key":"@"#, #""}},"state_key":"","type":"m.room."#,
        #""],"content":{"#,
        // Messages.
        #"{"body":""#, #""body":""#, #"","msgtype":"m.text"},"depth":"#,
        #"","m.mentions":{},"msgtype":"m.text"},"depth":"#,
        #""}},"type":"m.room.message"}"#, #""}},"type":"m.room.encrypted"}"#,
        #"{"algorithm":"m.megolm.v1.aes-sha2","ciphertext":""#,
        #"","device_id":""#, #"","sender_key":""#, #"","session_id":""#,
        // Members.
        #"{"displayname":""#, #"","membership":"join"},"depth":"#, #"{"membership":"leave"},"depth":"#,
        #"","type":"m.room.member"}"#, #"{"avatar_url":"mxc://"#,
        // From here on two bytes.
        #"{"membership":"join"},"depth":"#, #"{"membership":"invite"},"depth":"#, #"{"membership":"ban"},"depth":"#,
        #"{"membership":"knock"},"depth":"#, #""membership":"join""#, #""membership":"leave""#,
        #""membership":"invite""#,
        #""membership":"ban""#, #""membership":"knock""#, #"","displayname":""#, #","displayname":""#,
        #""avatar_url":null,"#,
        #""avatar_url":"mxc://"#, #"","reason":""#, #""join_authorised_via_users_server":"@"#, #""is_direct":true,"#,
        // Relations.
        #""m.relates_to":{"event_id":"$"#, #""m.relates_to":{"#, #"","rel_type":"m.thread"}"#,
        #"","rel_type":"m.replace"}"#,
        #"","rel_type":"m.reference"}"#, #"","rel_type":"m."#, #""is_falling_back":true,"#,
        #""m.in_reply_to":{"event_id":"$"#,
        #"","key":""#, #"","rel_type":"m.annotation"}},"depth":"#, #""m.new_content":{"body":""#, #"{"event_id":"$"#,
        #""event_id":"$"#, #""}},"type":"m.reaction"}"#, #""m.mentions":{"user_ids":["@"#, #""m.mentions":{}"#,
        // Kinds of messages.
        #"","msgtype":"m.text"}"#, #"","msgtype":"m.image","#, #"","msgtype":"m.notice"},"depth":"#,
        #"","msgtype":"m."#,
        #""msgtype":"m."#, #"","format":"org.matrix.custom.html","formatted_body":""#, #"","filename":""#, #""info":{"#,
        #"","mimetype":"image/"#, #""mimetype":"image/"#, #""mimetype":""#, #"","size":"#, #""size":"#,
        #"","url":"mxc://"#,
        #""url":"mxc://"#, #""url":""#, #""thumbnail_info":{"#, #""thumbnail_url":"mxc://"#, #""duration":"#, #","w":"#,
        #""h":"#, #""xyz.amorgan.blurhash":""#, #""thumbnail_file":{"#, #""file":{"hashes":{"sha256":""#, #""},"iv":""#,
        #"","key":{"alg":"A256CTR","ext":true,"k":""#, #"","key_ops":["encrypt","decrypt"],"kty":"oct"}"#,
        #","url":"mxc://"#, #"","v":"v2"}"#,
        // State of rooms.
        #"{"ban":50,"events":{"#, #""m.room.avatar":"#, #""m.room.canonical_alias":"#, #""m.room.encryption":"#,
        #""m.room.history_visibility":"#, #""m.room.name":"#, #""m.room.power_levels":"#, #""m.room.server_acl":"#,
        #""m.room.tombstone":"#, #""m.room.topic":"#, #"},"events_default":0,"#, #""historical":100,"#, #""invite":"#,
        #","kick":50,"#, #""notifications":{"room":50},"#, #""redact":50,"#, #""state_default":50,"users":{"@"#,
        #"":100"#,
        #"},"users_default":0},"depth":"#, #""history_visibility":"shared""#, #""history_visibility":""#,
        #"{"join_rule":"invite"},"depth":"#, #"{"join_rule":"public"},"depth":"#, #""join_rule":"restricted""#,
        #""allow":[{"#,
        #""room_id":"!"#, #""type":"m.room_membership"}"#, #""guest_access":"can_join"},"depth":"#,
        #""guest_access":"forbidden"},"depth":"#, #""room_version":""#, #""creator":"@"#, #""m.federate":false"#,
        #""predecessor":{"#, ##""alias":"#"##, ##""alt_aliases":["#"##,
        #"{"algorithm":"m.megolm.v1.aes-sha2"},"depth":"#,
        #""rotation_period_ms":"#, #""rotation_period_msgs":"#, #""via":[""#, #""suggested":"#, #""order":""#,
        #""}},"state_key":""#, #""state_key":"","type":"#, #""state_key":"!"#, #"","type":"m.space.child"}"#,
        #"","type":"m.space.parent"}"#, #""canonical":true"#, #"","type":"m."#, #"","type":"m.room."#, #"message"}"#,
        #"power_levels"}"#, #"history_visibility"}"#, #"guest_access"}"#, #"canonical_alias"}"#, #"join_rules"}"#,
        #"encryption"}"#, #"pinned_events"}"#, #"server_acl"}"#, #"redaction"}"#, #"tombstone"}"#,
        #"{"pinned":["$"#, #""allow_ip_literals":false,"#, #""deny":["#, #""allow":["*"]"#,
        // What only some have.
        #""],"redacts":"$"#, #"","room_id":"!"#, #"{"redacts":"$"#, #"","redacts":"$"#, #","unsigned":{"#,
        #"},"unsigned":{"#,
        #""age":"#, #""age_ts":"#, #""},"origin":""#, #"","origin_server_ts":"#, #","prev_events":[],"room_id":"!"#,
        #","prev_events":[],"sender":"@"#, #""],"sender":"@"#, #"{"auth_events":[],"content":{"#,
        #"],"prev_state":[],"#,
        #"[["$"#, #"",{"sha256":""#, #""}],["$"#, #""}]],"#, #""},"ed25519:"#, #""},""#, #"],"content":{"#,
        #"":{"#, #"":["#, #"":0"#, #"":50"#, #"":true"#, #"":false"#, #"":null"#,
    ]

    static let all: [[UInt8]] = texts.map { text in
        [UInt8](UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }

    static let table = Table()

    /// The fragments, for looking them up fast. Its memory is never given back.
    struct Table: @unchecked Sendable {
        let count = all.count
        private let texts: UnsafeMutablePointer<UnsafeBufferPointer<UInt8>>
        /// Of each slot, where its numbers begin; and all numbers by slot, those of the longest fragments first.
        private let starts: UnsafeMutablePointer<Int>
        private let numbers: UnsafeMutablePointer<Int>

        private static let slotBits = 10

        init() {
            texts = .allocate(capacity: count)
            numbers = .allocate(capacity: count)
            starts = .allocate(capacity: 1 << Self.slotBits + 1)
            var bySlot = [[Int]](repeating: [], count: 1 << Self.slotBits)
            for (number, text) in PackedEventFragments.texts.enumerated() {
                let bytes = UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount)
                (texts + number).initialize(to: bytes)
                bySlot[Self.slot(of: bytes, at: 0)].append(number)
            }
            var next = 0
            for (slot, members) in bySlot.enumerated() {
                (starts + slot).initialize(to: next)
                for number in members.sorted(by: { all[$0].count > all[$1].count }) {
                    (numbers + next).initialize(to: number)
                    next += 1
                }
            }
            (starts + bySlot.count).initialize(to: next)
        }

        func bytes(of number: Int) -> UnsafeBufferPointer<UInt8> { texts[number] }

        /// By the first three bytes: no fragment is shorter.
        private static func slot(of bytes: UnsafeBufferPointer<UInt8>, at index: Int) -> Int {
            let start = UInt32(bytes[index]) << 16 | UInt32(bytes[index + 1]) << 8 | UInt32(bytes[index + 2])
            return Int((start &* 2_654_435_769) >> UInt32(32 - slotBits))
        }

        /// The number of the longest fragment that the bytes have at a place, and its length.
        func longest(in bytes: UnsafeBufferPointer<UInt8>, at index: Int) -> (number: Int, count: Int)? {
            guard index + 3 <= bytes.count else { return nil }
            let slot = Self.slot(of: bytes, at: index)
            for place in starts[slot]..<starts[slot + 1] {
                let fragment = texts[numbers[place]]
                guard fragment.count <= bytes.count - index,
                    memcmp(fragment.baseAddress!, bytes.baseAddress! + index, fragment.count) == 0
                else { continue }
                return (numbers[place], fragment.count)
            }
            return nil
        }
    }
}
