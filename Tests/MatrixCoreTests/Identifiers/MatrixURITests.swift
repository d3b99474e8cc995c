import Testing

@testable import MatrixCore

/// Appendices, URIs.
@Suite("URIs") struct MatrixURITests {
    static let alias = MatrixURI.Target.alias(RoomAlias(unchecked: "#somewhere:example.org"))
    static let room = RoomID(unchecked: "!somewhere:example.org")
    static let via = [ServerName(unchecked: "elsewhere.ca")]
    static let event = EventID(unchecked: "$event:example.org")
    static let user = MatrixURI.Target.user(UserID(unchecked: "@alice:example.org"))

    @Test(
        "the examples of the appendix, both schemes and both encodings",
        arguments: [
            ("matrix:r/somewhere:example.org", MatrixURI(alias)),
            ("matrix:roomid/somewhere:example.org?via=elsewhere.ca", MatrixURI(.room(room), via: via)),
            (
                "matrix:roomid/somewhere:example.org/e/event?via=elsewhere.ca",
                MatrixURI(.event(EventID(unchecked: "$event"), room), via: via)
            ),
            ("matrix:u/alice:example.org?action=chat", MatrixURI(user, action: .chat)),
            ("https://matrix.to/#/%23somewhere:example.org", MatrixURI(alias)),
            ("https://matrix.to/#/!somewhere:example.org?via=elsewhere.ca", MatrixURI(.room(room), via: via)),
            (
                "https://matrix.to/#/!somewhere:example.org/$event:example.org?via=elsewhere.ca",
                MatrixURI(.event(event, room), via: via)
            ),
            ("https://matrix.to/#/@alice:example.org", MatrixURI(user)),
            ("https://matrix.to/#/%23somewhere%3Aexample.org", MatrixURI(alias)),
            ("https://matrix.to/#/%21somewhere%3Aexample.org?via=elsewhere.ca", MatrixURI(.room(room), via: via)),
            (
                "https://matrix.to/#/%21somewhere%3Aexample.org/%24event%3Aexample.org?via=elsewhere.ca",
                MatrixURI(.event(event, room), via: via)
            ),
            ("https://matrix.to/#/%40alice%3Aexample.org", MatrixURI(user)),
            // Historical and deprecated forms.
            ("https://matrix.to/#/#somewhere:example.org", MatrixURI(alias)),
            ("matrix:user/alice:example.org", MatrixURI(user)),
            ("MATRIX:room/somewhere:example.org", MatrixURI(alias)),
            ("matrix://authority/u/alice:example.org#fragment", MatrixURI(user)),
            (
                "matrix:r/somewhere:example.org/event/event",
                MatrixURI(.eventInAlias(EventID(unchecked: "$event"), RoomAlias(unchecked: "#somewhere:example.org")))
            ),
            ("matrix:u/alice:example.org?action=dance&via=x%20y&via=elsewhere.ca", MatrixURI(user, via: via)),
        ])
    func examples(text: String, uri: MatrixURI) {
        #expect(MatrixURI(text) == uri)
    }

    @Test(
        "what is written is read back",
        arguments: [
            MatrixURI(alias), MatrixURI(user, via: via, action: .chat), MatrixURI(.room(room), via: via, action: .join),
            MatrixURI(
                .event(EventID(unchecked: "$a/b+c"), RoomID(unchecked: "!31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM"))),
            MatrixURI(.user(UserID(unchecked: "@ä ?#/%&:example.org:80"))),
        ])
    func roundTrip(uri: MatrixURI) {
        #expect(MatrixURI(uri.matrixScheme) == uri)
        var withoutAction = uri
        withoutAction.action = nil
        #expect(MatrixURI(uri.matrixTo) == withoutAction)
    }

    @Test(
        "what is no such URI is refused",
        arguments: [
            "", "matrix:", "matrix:u", "matrix:u/", "matrix:u/alice", "matrix:x/alice:example.org",
            "matrix:u/alice:example.org/e/event",
            "matrix:roomid/a:b/x/event", "matrix:roomid/a:b/e", "matrix:u/alice%:example.org",
            "matrix:u/%FF:example.org", "matrix://u",
            "https://matrix.to/#/", "https://matrix.to/#/alice", "https://matrix.to/#/+group:example.org",
            "http://matrix.to/#/@alice:example.org",
            "https://matrix.to/#/@alice:example.org/$event", "https://matrix.to/#/!a:b/event",
            "https://evil.org/#/@alice:example.org",
            "mailto:alice@example.org",
        ])
    func invalid(text: String) {
        #expect(MatrixURI(text) == nil)
    }

    @Test("longer than two identifiers and some servers can be is refused unread")
    func length() {
        #expect(MatrixURI("matrix:u/alice:example.org?x=" + String(repeating: "a", count: 9_000)) == nil)
    }
}
