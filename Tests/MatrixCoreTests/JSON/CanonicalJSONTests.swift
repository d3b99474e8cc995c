import Testing

@testable import MatrixCore

/// Appendices, Canonical JSON, Examples.
@Suite("Canonical JSON") struct CanonicalJSONTests {
    static let vectors: [(String, String)] = [
        ("{}", "{}"),
        (#"{ "one": 1, "two": "Two" }"#, #"{"one":1,"two":"Two"}"#),
        (#"{ "b": "2", "a": "1" }"#, #"{"a":"1","b":"2"}"#),
        (#"{"b":"2","a":"1"}"#, #"{"a":"1","b":"2"}"#),
        (
            """
            { "auth": { "success": true, "mxid": "@john.doe:example.com", "profile": { "display_name": "John Doe",
              "three_pids": [ { "medium": "email", "address": "john.doe@example.org" },
                { "medium": "msisdn", "address": "123456789" } ] } } }
            """,
            #"{"auth":{"mxid":"@john.doe:example.com","profile":{"display_name":"John Doe","three_pids":[{"address":"john.doe@example.org","medium":"email"},{"address":"123456789","medium":"msisdn"}]},"success":true}}"#
        ),
        (#"{ "a": "日本語" }"#, #"{"a":"日本語"}"#),
        (#"{ "本": 2, "日": 1 }"#, #"{"日":1,"本":2}"#),
        (#"{ "a": "\u65E5" }"#, #"{"a":"日"}"#),
        (#"{ "a": null }"#, #"{"a":null}"#),
        (#"{ "a": -0, "b": 1e10 }"#, #"{"a":0,"b":10000000000}"#),
    ]

    @Test("the examples of the appendix", arguments: vectors)
    func vector(text: String, canonical: String) throws {
        let document = try JSONDocument(parsing: Array(text.utf8))
        #expect(try document.root.canonical() == Array(canonical.utf8))
        #expect(try document.root.json.canonical() == Array(canonical.utf8))
    }

    @Test("control characters use the escapes of the grammar and no others")
    func escapes() throws {
        let text = #""\u0000\u0007\b\t\n\u000b\f\r\u001F\"\\\/\u007f\u00e9""#
        let canonical = "\"\\u0000\\u0007\\b\\t\\n\\u000b\\f\\r\\u001f\\\"\\\\/\u{7F}é\""
        #expect(try JSONDocument(parsing: Array(text.utf8)).root.canonical() == Array(canonical.utf8))
    }

    @Test("keys are sorted by their code points after escapes are resolved")
    func keyOrder() throws {
        // U+FFFD sorts before U+1F600 by code point, after it by UTF-16 unit.
        let text = #"{"\ud83d\ude00":1,"\ufffd":2,"\u0062":3,"aa":4,"a":5,"":6}"#
        let canonical = "{\"\":6,\"a\":5,\"aa\":4,\"b\":3,\"\u{FFFD}\":2,\"😀\":1}"
        #expect(try JSONDocument(parsing: Array(text.utf8)).root.canonical() == Array(canonical.utf8))
    }

    @Test("short keys are in order at the very end of the text as anywhere else")
    func keysAtTheEnd() throws {
        for padding in 0...12 {
            let text = #"{"b":2,"a":"\#(String(repeating: "x", count: padding))","}":1}"#
            let canonical = #"{"a":"\#(String(repeating: "x", count: padding))","b":2,"}":1}"#
            #expect(try JSONDocument(parsing: Array(text.utf8)).root.canonical() == Array(canonical.utf8))
        }
        #expect(
            try JSONDocument(parsing: Array(#"{"b":1,"":2,"a":3}"#.utf8)).root.canonical()
                == Array(#"{"":2,"a":3,"b":1}"#.utf8))
    }

    @Test(
        "numbers that are no integers within ±(2^53−1) are refused",
        arguments: [
            "1.5", "9007199254740992", "-9007199254740992", "1e16", "1e400", "123456789012345678901234567890",
        ])
    func refusedNumbers(text: String) throws {
        let document = try JSONDocument(parsing: Array(text.utf8))
        #expect(throws: CanonicalJSONError.self) { try document.root.canonical() }
    }

    @Test(
        "the largest and smallest integers stay as they are", arguments: ["9007199254740991", "-9007199254740991", "0"])
    func acceptedNumbers(text: String) throws {
        #expect(try JSONDocument(parsing: Array(text.utf8)).root.canonical() == Array(text.utf8))
    }

    @Test("members are left out only at the top level")
    func omitting() throws {
        let text = #"{"signatures":{},"unsigned":{"signatures":1},"a":{"signatures":1}}"#
        let canonical = #"{"a":{"signatures":1}}"#
        let document = try JSONDocument(parsing: Array(text.utf8))
        #expect(try document.root.canonical(omitting: ["signatures", "unsigned"]) == Array(canonical.utf8))
    }

    /// The right-hand sides are what Python's `repr` writes, by which Synapse hashes such events.
    @Test(
        "historical rooms keep floats in the shortest spelling and integers of any size",
        arguments: [
            ("50.57", "50.57"), ("1e10", "10000000000.0"), ("1e16", "1e+16"),
            ("12345678901234567.0", "1.2345678901234568e+16"),
            ("1E-5", "1e-05"), ("0.0001", "0.0001"), ("-0", "0"), ("-0.0", "-0.0"), ("1e22", "1e+22"),
            ("2e300", "2e+300"),
            ("123456789012345678901234567890", "123456789012345678901234567890"),
        ])
    func historical(text: String, canonical: String) throws {
        let document = try JSONDocument(parsing: Array(text.utf8))
        #expect(try String(decoding: document.root.canonical(numbers: .historical), as: UTF8.self) == canonical)
    }
}
