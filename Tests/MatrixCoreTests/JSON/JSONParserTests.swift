import Testing

@testable import MatrixCore

@Suite("JSON parser") struct JSONParserTests {
    @Test(
        "what the grammar allows is read",
        arguments: [
            "null", " true ", "false", "0", "-0", "-12.5e+3", "1E9", "\"\"", "[]", "{}", "[1,[2,[3]],{}]",
            "{\"a\":{\"b\":[null,\"\\ud83d\\ude00\"]}}", "\t\r\n[ 1 , 2 ]\n", "\"\u{7F}\u{10FFFF}\"",
        ])
    func valid(text: String) throws {
        _ = try JSONDocument(parsing: Array(text.utf8))
    }

    @Test(
        "A11 what the grammar does not allow is refused, with the reason",
        arguments: [
            ("", JSONError.Reason.unexpectedEnd), (" ", .unexpectedEnd), ("nul", .unexpectedEnd),
            ("nulL", .unexpectedByte),
            ("True", .unexpectedByte), ("NaN", .unexpectedByte), ("Infinity", .unexpectedByte), ("-", .unexpectedEnd),
            ("-a", .invalidNumber), ("01", .invalidNumber), ("-01", .invalidNumber), ("1.", .invalidNumber),
            (".5", .unexpectedByte),
            ("1e", .invalidNumber), ("1e+", .invalidNumber), ("+1", .unexpectedByte), ("0x10", .trailingBytes),
            ("1 2", .trailingBytes), ("[1,]", .unexpectedByte), ("[,1]", .unexpectedByte), ("[1 2]", .unexpectedByte),
            ("[", .unexpectedEnd), ("[1", .unexpectedEnd), ("[1,", .unexpectedEnd), ("]", .unexpectedByte),
            ("[}", .unexpectedByte), ("{]", .unexpectedByte), ("{", .unexpectedEnd), ("{\"a\"", .unexpectedEnd),
            ("{\"a\":", .unexpectedEnd), ("{\"a\":1,}", .unexpectedByte), ("{a:1}", .unexpectedByte),
            ("{\"a\" 1}", .unexpectedByte), ("{1:1}", .unexpectedByte), ("\"", .unexpectedEnd),
            ("\"\\\"", .unexpectedEnd),
            ("\"\\x\"", .invalidEscape), ("\"\\u12G4\"", .invalidEscape), ("\"\\u12", .unexpectedEnd),
            ("\"\n\"", .controlCharacter), ("\"\u{0}\"", .controlCharacter), ("'a'", .unexpectedByte),
            ("// comment\n1", .unexpectedByte), ("\u{FEFF}1", .unexpectedByte),
        ])
    func invalid(text: String, reason: JSONError.Reason) {
        let error = #expect(throws: JSONError.self) { try JSONDocument(parsing: Array(text.utf8)) }
        #expect(error?.reason == reason)
    }

    @Test(
        "A11 lone surrogates are refused",
        arguments: [
            #""\ud800""#, #""\udc00""#, #""\ud800x""#, #""\ud800\n""#, #""\ud800\ud800""#, #""\udc00\ud800""#,
            #"{"\ud800":1}"#,
        ])
    func loneSurrogates(text: String) {
        let error = #expect(throws: JSONError.self) { try JSONDocument(parsing: Array(text.utf8)) }
        #expect(error?.reason == .loneSurrogate)
    }

    @Test(
        "A11 invalid UTF-8 is refused",
        arguments: [
            [0x80], [0xC0, 0xAF], [0xC1, 0xBF], [0xC3], [0xC3, 0x28], [0xE0, 0x9F, 0xBF], [0xE2, 0x82],
            [0xED, 0xA0, 0x80],
            [0xED, 0xBF, 0xBF], [0xF0, 0x8F, 0xBF, 0xBF], [0xF0, 0x9F, 0x98], [0xF4, 0x90, 0x80, 0x80],
            [0xF5, 0x80, 0x80, 0x80],
            [0xFF], [0xFE],
        ] as [[UInt8]])
    func invalidUTF8(bytes: [UInt8]) {
        // At every distance from the ends, so that both the word-wise and the byte-wise scan see it.
        for padding in 0...9 {
            let text =
                [0x22] + Array(repeating: 0x61, count: padding) + bytes + Array(repeating: 0x61, count: padding) + [
                    0x22
                ]
            let error = #expect(throws: JSONError.self) { try JSONDocument(parsing: text) }
            #expect(error?.reason == .invalidUTF8)
        }
    }

    @Test("A11 nesting is limited, and the limit costs no stack")
    func depth() throws {
        func nested(_ depth: Int) -> [UInt8] {
            Array(repeating: 0x5B, count: depth) + Array(repeating: 0x5D, count: depth)
        }
        _ = try JSONDocument(parsing: nested(100))
        let error = #expect(throws: JSONError.self) { try JSONDocument(parsing: nested(101)) }
        #expect(error?.reason == .tooDeep)
        _ = try JSONDocument(parsing: nested(200_000), limits: JSONLimits(maxDepth: 200_000))
        let endless = Array(repeating: UInt8(0x5B), count: 1_000_000)
        #expect(throws: JSONError.self) { try JSONDocument(parsing: endless) }
    }

    @Test(
        "A11 duplicate keys are refused however they are spelled",
        arguments: [
            #"{"a":1,"a":2}"#, #"{"b":0,"a":1,"c":{},"a":2}"#, #"{"\u0061":1,"a":2}"#,
            #"[{"x":{"k":[],"j":0,"k":{}}}]"#,
            #"{"":1,"":2}"#, #"{"\u00e9":1,"é":2}"#,
        ])
    func duplicateKeys(text: String) throws {
        let error = #expect(throws: JSONError.self) { try JSONDocument(parsing: Array(text.utf8)) }
        #expect(error?.reason == .duplicateKey)
        // In an envelope the last one counts.
        _ = try JSONDocument(parsing: Array(text.utf8), limits: .envelope)
    }

    @Test("keys that are only canonically equivalent are two keys")
    func canonicallyEquivalentKeys() throws {
        let document = try JSONDocument(parsing: Array("{\"\u{E9}\":1,\"e\u{301}\":2}".utf8))
        #expect(document.root["\u{E9}"]?.integer == 1)
        #expect(document.root["e\u{301}"]?.integer == 2)
        #expect(document.root.json["e\u{301}"] == 2)
    }

    @Test("A11 an object of many keys with a duplicate is found out in time", .timeLimit(.minutes(1)))
    func manyKeys() throws {
        let keys = (0..<50_000).map { "\"k\(($0 &* 7_919) % 50_000)\":0" }
        _ = try JSONDocument(parsing: Array("{\(keys.joined(separator: ","))}".utf8))
        let twice = "{\(keys.joined(separator: ",")),\"k77\":1}"
        let error = #expect(throws: JSONError.self) { try JSONDocument(parsing: Array(twice.utf8)) }
        #expect(error?.reason == .duplicateKey)
    }

    @Test("of duplicate keys in an envelope the last is found")
    func lastWins() throws {
        let document = try JSONDocument(parsing: Array(#"{"a":1,"b":[1,2],"a":{"x":3}}"#.utf8), limits: .envelope)
        #expect(document.root["a"]?["x"]?.integer == 3)
        #expect(try document.root.canonical() == Array(#"{"a":{"x":3},"b":[1,2]}"#.utf8))
    }

    @Test(
        "A11 only canonical numbers pass where events are read",
        arguments: [
            ("9007199254740991", true), ("-9007199254740991", true), ("0", true), ("9007199254740992", false),
            ("-9007199254740992", false), ("1.0", false), ("1e2", false), ("-0", false),
            ("99999999999999999999", false),
        ])
    func canonicalNumbers(text: String, isAccepted: Bool) {
        let document = try? JSONDocument(parsing: Array(text.utf8), limits: JSONLimits(numbers: .canonicalOnly))
        #expect((document != nil) == isAccepted)
    }

    @Test("texts longer than the limit are refused unread")
    func length() {
        let limits = JSONLimits(maxBytes: 3)
        #expect((try? JSONDocument(parsing: Array("123".utf8), limits: limits)) != nil)
        let error = #expect(throws: JSONError.self) { try JSONDocument(parsing: Array("!!!!".utf8), limits: limits) }
        #expect(error?.reason == .tooLong)
    }
}

@Suite("JSON views and values") struct JSONViewTests {
    static let text =
        #"{"s":"a\"\u00e9\n","i":-42,"big":9007199254740992,"f":1.5,"t":true,"n":null,"l":[1,"x",{"y":[]}],"o":{}}"#

    @Test("every kind of value is read, and only as what it is")
    func accessors() throws {
        let root = try JSONDocument(parsing: Array(Self.text.utf8)).root
        #expect(root.count == 8)
        #expect(root["s"]?.string == "a\"é\n")
        #expect(root["i"]?.integer == -42)
        #expect(root["i"]?.double == -42)
        #expect(root["i"]?.string == nil)
        #expect(root["big"]?.integer == nil)
        #expect(root["big"]?.kind == .integer)
        #expect(root["f"]?.integer == nil)
        #expect(root["f"]?.double == 1.5)
        #expect(root["t"]?.bool == true)
        #expect(root["n"]?.isNull == true)
        #expect(root["n"]?.bool == nil)
        #expect(root["l"]?.elements.map { String(decoding: $0.raw, as: UTF8.self) } == ["1", "\"x\"", "{\"y\":[]}"])
        #expect(root["o"]?.count == 0)
        #expect(root["missing"] == nil)
        #expect(root["s"]?["x"] == nil)
        #expect(root["s"]?.elements.map { $0.count } == [])
        #expect(root.members.map(\.key) == ["s", "i", "big", "f", "t", "n", "l", "o"])
    }

    @Test("a value encoded and parsed is the same value")
    func roundTrip() throws {
        let json = try JSONDocument(parsing: Array(Self.text.utf8)).root.json
        let again = try JSONDocument(parsing: json.encoded()).root.json
        #expect(json == again)
        #expect(json["l"]?.arrayValue?.count == 3)
    }

    @Test("the writer sets commas and escapes where they belong")
    func writer() throws {
        var writer = JSONWriter()
        writer.beginObject()
        writer.key("a\"b")
        writer.beginArray()
        writer.integer(Int64.min)
        writer.integer(0)
        writer.string("\u{1}\\é")
        writer.beginObject()
        writer.endObject()
        writer.bool(true)
        writer.endArray()
        writer.key(plain: "c")
        writer.null()
        writer.key("d")
        writer.raw(Array("[1]".utf8))
        writer.endObject()
        let expected = #"{"a\"b":[-9223372036854775808,0,"\u0001\\é",{},true],"c":null,"d":[1]}"#
        #expect(String(decoding: writer.bytes, as: UTF8.self) == expected)
    }

    @Test("objects compare without regard to order, strings by their bytes")
    func equality() {
        #expect(["a": 1, "b": 2] as JSON == ["b": 2, "a": 1])
        #expect("\u{E9}" as JSON != "e\u{301}")
        #expect(["\u{E9}": 1] as JSON != ["e\u{301}": 1])
        #expect(Set<JSON>([["a": 1, "b": 2], ["b": 2, "a": 1]]).count == 1)
    }

    @Test("an object keeps its order through changes, small and large")
    func object() {
        var object = JSONObject()
        for number in 0..<40 { object["k\(number)"] = .integer(Int64(number)) }
        object["k3"] = "changed"
        object.remove("k0")
        object["k39"] = nil
        #expect(object.keys == (1..<39).map { "k\($0)" })
        #expect(object["k3"] == "changed")
        #expect(object["k38"] == 38)
        #expect(object["k0"] == nil)
    }
}

@Suite("JSON values") struct JSONValueTests {
    @Test("setting a member makes an object of what was none, and nil removes")
    func members() {
        var value: JSON = "text"
        value["a"] = 1
        #expect(value == ["a": 1])
        value["b"] = ["c": nil]
        value["a"] = nil
        #expect(value == ["b": ["c": nil]])
        #expect(value["b"]?["c"]?.isNull == true)
        #expect(value["b"]?.isNull == false)
        var empty: JSON = nil
        empty["x"] = nil
        #expect(empty == [:])
    }

    @Test("accessors answer for their own kind only")
    func accessors() {
        let integer: JSON = 5
        #expect(integer.integerValue == 5 && integer.doubleValue == 5 && integer.stringValue == nil)
        #expect(JSON.integer(1 << 53).integerValue == nil)
        #expect((1.5 as JSON).doubleValue == 1.5 && (1.5 as JSON).integerValue == nil)
        #expect(("x" as JSON).stringValue == "x" && ("x" as JSON).boolValue == nil && ("x" as JSON).doubleValue == nil)
        #expect((true as JSON).boolValue == true && (true as JSON).arrayValue == nil)
        #expect(([1] as JSON).arrayValue == [1] && ([1] as JSON).objectValue == nil)
        #expect((["a": 1] as JSON).objectValue?["a"] == 1)
    }

    @Test("JSON that is already encoded goes out as it is, and is checked where it has to be canonical")
    func raw() throws {
        let value: JSON = ["a": .raw(Array("[ 1,{\"b\":2} ]".utf8))]
        #expect(String(decoding: value.encoded(), as: UTF8.self) == #"{"a":[ 1,{"b":2} ]}"#)
        #expect(try String(decoding: value.canonical(), as: UTF8.self) == #"{"a":[1,{"b":2}]}"#)
        #expect(throws: CanonicalJSONError.self) { try JSON.raw(Array("{".utf8)).canonical() }
    }

    @Test("numbers that JSON has no word for are null", arguments: [Double.infinity, -.infinity, .nan])
    func nonNumbers(value: Double) {
        #expect(JSON.double(value).encoded() == Array("null".utf8))
    }

    @Test("errors say where")
    func errorText() {
        let error = #expect(throws: JSONError.self) { try JSONDocument(parsing: Array(#"{"a":tru}"#.utf8)) }
        #expect(error?.offset == 8)
        #expect(error?.description.contains("byte 8") == true)
    }
}
