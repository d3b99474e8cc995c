import MatrixCore
import RoostTestSupport
import Testing

@testable import Database

@Suite("Packed events")
struct PackedEventTests {
    /// A message as a client sends it and a server signs it.
    private static let message = Array(
        #"""
        {"auth_events":["$Rqnc-F-dvnEYJTyHq_iKxU2bZ1CI92-kuZq3a5lr5Zg","$Xz1vAtCWm_pDjA3aNDYdQAm0iBnFkwRTXqiqXgWRDzM","$9fUzvDQYXoY1FFaqSdKxAHpRCZrcyZpVjOrNgU2JlYY"],"content":{"body":"the quick brown fox","m.mentions":{},"msgtype":"m.text"},"depth":42,"hashes":{"sha256":"thvWTUPPnD/pMHQL9IX+8m1dEL6tt1qEmrU3gFPiKb4"},"origin_server_ts":1764444444123,"prev_events":["$5hdALbO+xIhzcLTxCkspx5uqry9wO8322h/OI9ApnHE"],"room_id":"!AAUvTLnjHbSIcPZbrL:chat.example.org","sender":"@somebody:chat.example.org","signatures":{"chat.example.org":{"ed25519:a_mNpQ":"GR4zSzKBv2jvk+0x8rrqmG2h2CWfZP5gH0ZAcAOk9z3Y9xWbJOFGbnGMN2oAGWkU4YzD3nEHzOH5rW2VjU4vCQ"}},"type":"m.room.message"}
        """#.utf8)

    /// What was made of it at first.
    private static let packed =
        "AZQFAPZGqdz4X52+cRglPIer+IrFTZtnUIj3b6S5mrdrmWvlmAH2Xz1vAtCWm/pDjA3aNDYdQAm0iBnFkwRTXqiqXgWRDzMB9vX1M7w0GF6GNR"
        + "RWqknSsQB6UQma3MmaVYzqzYFNiZWGDxF0aGUgcXVpY2sgYnJvd24gZm94EzQyBfW2G9ZNQ8+cP+kwdAv0hf7ybV0Qvq23WoSatTeAU+Ipvgb4"
        + "26vWiK0zB/XmF0Ats77EiHNwtPEKSynHm6qvL3A7zfbaH84j0CmccQjADAAFL0y54x20iHD2W3JMOmNoYXQuZXhhbXBsZS5vcmcJc29tZWJvZH"
        + "k6+SYQCvlHEAthX21OcFEC9xkeM0sygb9o75PtMfK66phtodgln2T+YB9GQHADpPc92PcVmyThRm5xjDdqABlpFOGMw95xB8zh+a1tlY1OLwkU"

    @Test("a message takes about half, and comes back as it was")
    func message() throws {
        let packed = PackedEvent.pack(Self.message)
        #expect(packed.first == PackedEvent.mark)
        #expect(packed.count * 2 < Self.message.count + 40)
        #expect(try PackedEvent.unpack(packed) == Self.message)
    }

    @Test("a row that was packed when packing was new is read")
    func before() throws {
        #expect(PackedEvent.pack(Self.message) == Base64.decode(Self.packed))
        #expect(try PackedEvent.unpack(try #require(Base64.decode(Self.packed))) == Self.message)
    }

    @Test("IDs of events come back as they were, those that are hashes as hashes")
    func eventIDs() throws {
        for (text, bytes) in [
            ("$5hdALbO+xIhzcLTxCkspx5uqry9wO8322h/OI9ApnHE", 33), ("$Rqnc-F-dvnEYJTyHq_iKxU2bZ1CI92-kuZq3a5lr5Zg", 33),
            ("$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", 33), ("$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB", 44),
            ("$+AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA-", 44), ("$15161234abcd:example.org", 25), ("", 0),
        ] {
            let packed = PackedEventID.pack(EventID(unchecked: text))
            #expect(packed.count == bytes)
            #expect(PackedEventID.unpack(packed).string == text)
        }
    }

    @Test(
        "all kinds of texts come back as they were",
        arguments: [
            "{}", "{", "", "not JSON", #"{"a":"\u0000"}"#, "{\"a\":\"\u{1}\"}", "{\"\u{10FFFF}\":1}",
            #"{"n":[0,1,12345,123456,99999999999999999,9007199254740991,-123456,100000000000000000000]}"#,
            #"{"a":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB","b":"AAAAAAAAAAAAAAAAA","c":"++++++++++++++++----------------"}"#,
            #"{"a":"@u:example.org","b":"@u:example.org","c":"u:example.org","d":"example.org","e":"xexample.org"}"#,
            #"{"a":"mxc://example.org/abcdefghijklmnopqrstuvwx","b":"m.room.power_levels"}"#,
            #"{"b":"@unfinished:example.org"#, #"{"b":"\"@a:b.example\":\"@a:b.example\""}"#,
        ])
    func texts(_ text: String) throws {
        #expect(try PackedEvent.unpack(PackedEvent.pack(Array(text.utf8))) == Array(text.utf8))
    }

    @Test("every fragment comes back as it was, can be told by one byte or two, and is found")
    func fragments() throws {
        #expect(PackedEventFragments.all.count <= Int(PackedEvent.fragment) + 256)
        #expect(Set(PackedEventFragments.all).count == PackedEventFragments.all.count)
        for fragment in PackedEventFragments.all {
            let text = Array(#"{"a":."#.utf8) + fragment + fragment + fragment
            let packed = PackedEvent.pack(text)
            #expect(try PackedEvent.unpack(packed) == text)
            #expect(packed.count < text.count, "\(String(decoding: fragment, as: UTF8.self)) is not found")
        }
    }

    @Test("what is made of pieces of events by chance comes back as it was", arguments: 0..<40)
    func pieces(seed: Int) throws {
        var generator = SeededGenerator(seed: UInt64(seed))
        for _ in 0..<200 {
            var text = Array("{".utf8)
            for _ in 0..<Int.random(in: 1...30, using: &generator) {
                switch Int.random(in: 0..<6, using: &generator) {
                case 0: text += PackedEventFragments.all.randomElement(using: &generator)!
                case 1:
                    let start = Int.random(in: 0..<Self.message.count, using: &generator)
                    text += Self.message[start..<Int.random(in: start...Self.message.count, using: &generator)]
                case 2:
                    text += Array(
                        "\(UInt64.random(in: 0...(.max), using: &generator) >> UInt64.random(in: 0...63, using: &generator))"
                            .utf8)
                case 3:
                    let bytes = (0..<Int.random(in: 0...70, using: &generator)).map { _ in
                        UInt8.random(in: 0...255, using: &generator)
                    }
                    let alphabet: Base64.Alphabet = Bool.random(using: &generator) ? .standard : .urlSafe
                    text += Array(Base64.encode(bytes, alphabet: alphabet).utf8)
                case 4: text.append(UInt8.random(in: 0...255, using: &generator))
                default:
                    text += Array(
                        ["\"", "@", ":", "\":\"", "$", "[", "é", "日本", "\\\""].randomElement(using: &generator)!.utf8)
                }
            }
            #expect(try PackedEvent.unpack(PackedEvent.pack(text)) == text)
        }
    }

    @Test("damaged bytes are refused, or are those of another text of the same length", arguments: 0..<40)
    func damaged(seed: Int) {
        var generator = SeededGenerator(seed: UInt64(seed))
        let whole = PackedEvent.pack(Self.message)
        for _ in 0..<500 {
            var packed = whole
            for _ in 0..<Int.random(in: 1...3, using: &generator) {
                let place = Int.random(in: 1..<packed.count, using: &generator)
                switch Int.random(in: 0..<3, using: &generator) {
                case 0: packed[place] = UInt8.random(in: 0...255, using: &generator)
                case 1: packed.removeSubrange(place...)
                default: packed.insert(UInt8.random(in: 0...255, using: &generator), at: place)
                }
                if packed.count < 2 { break }
            }
            if let text = try? PackedEvent.unpack(packed) { #expect(text.count < 1 << 20) }
        }
        #expect(throws: DatabaseError.self) { try PackedEvent.unpack([0x01]) }
        #expect(throws: DatabaseError.self) { try PackedEvent.unpack([0x01, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F]) }
        #expect(throws: DatabaseError.self) {
            try PackedEvent.unpack([0x01, 0x02, 0xC0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F])
        }
        #expect(throws: DatabaseError.self) { try PackedEvent.unpack([0x01, 0x02, 0xF9, 0x01, 0x01]) }
    }
}
