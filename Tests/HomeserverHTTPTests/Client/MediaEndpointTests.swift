import MatrixCore
import NIOHTTP1
import NIOPosix
import RoostTestSupport
import Testing

@testable import Homeserver
@testable import HomeserverHTTP

@Suite("Client-Server API: files")
struct MediaEndpointTests {
    private let client: ClientSession
    private let alice: String

    init() async throws {
        client = ClientSession(try await TestServer())
        alice = await client.register("alice")
    }

    private func upload(
        _ bytes: [UInt8], type: String?, name: String? = nil, sourceLocation: SourceLocation = #_sourceLocation
    ) async -> String {
        let query = name.map { "?filename=\(GeneratedInputScene.encoded($0))" } ?? ""
        let answer = await client.ask(
            .POST, "/_matrix/media/v3/upload\(query)", token: alice, raw: bytes,
            headers: type.map { [("Content-Type", $0)] } ?? [], sourceLocation: sourceLocation)
        return String((answer.json["content_uri"]?.stringValue ?? "").dropFirst("mxc://localhost/".count))
    }

    private func download(_ mediaID: String, name: String? = nil) async -> ClientSession.Answer {
        let name = name.map { "/\(GeneratedInputScene.encoded($0))" } ?? ""
        return await client.ask(.GET, "/_matrix/client/v1/media/download/localhost/\(mediaID)\(name)", token: alice)
    }

    private func header(_ name: String, _ answer: ClientSession.Answer) -> String { answer.headers[name].joined() }

    @Test(
        "A26: what a browser might run is offered for saving, whatever it calls itself",
        arguments: [
            "text/html", "TEXT/HTML", "text/html; charset=utf-8", "application/xhtml+xml", "image/svg+xml", "text/xml",
            "application/xml", "application/javascript", "text/javascript", "application/pdf", "multipart/mixed",
            "application/octet-stream", "image/png, text/html", "image/png,text/html", "", "text/plainx", "nonsense",
        ])
    func active(type: String) async throws {
        let mediaID = await upload(Array("<script>alert(1)</script>".utf8), type: type)
        expectSafe(await download(mediaID), "attachment")
        await client.server.close()
    }

    @Test(
        "A26: what may be shown in place is shut into a sandbox too",
        arguments: [
            "image/png", "image/JPEG", "text/plain; charset=utf-8", "video/mp4", "audio/ogg", "application/json",
        ])
    func shown(type: String) async throws {
        let mediaID = await upload(Array("<script>alert(1)</script>".utf8), type: type)
        let answer = await download(mediaID)
        expectSafe(answer, "inline")
        #expect(header("Content-Type", answer) == type)
        await client.server.close()
    }

    private func expectSafe(
        _ answer: ClientSession.Answer, _ disposition: String, sourceLocation: SourceLocation = #_sourceLocation
    ) {
        #expect(answer.status == 200, sourceLocation: sourceLocation)
        let shown = header("Content-Disposition", answer)
        #expect(shown.split(separator: ";").first.map(String.init) == disposition, sourceLocation: sourceLocation)
        #expect(header("X-Content-Type-Options", answer) == "nosniff", sourceLocation: sourceLocation)
        #expect(header("Cross-Origin-Resource-Policy", answer) == "cross-origin", sourceLocation: sourceLocation)
        #expect(
            header("Content-Security-Policy", answer)
                == "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; style-src 'unsafe-inline'; object-src 'self';",
            sourceLocation: sourceLocation)
    }

    @Test("A26: a type that is no header is not sent as one")
    func headerInjection() async throws {
        let mediaID = await upload([1], type: "image/png\r\nX-Evil: 1")
        let answer = await download(mediaID)
        #expect(header("Content-Type", answer) == "application/octet-stream" && answer.headers["X-Evil"].isEmpty)
        expectSafe(answer, "attachment")
        await client.server.close()
    }

    @Test(
        "A25: a file's name leads nowhere, and stays one header",
        arguments: [
            ("report.txt", "filename=\"report.txt\""), ("../../etc/passwd", "filename=\"passwd\""),
            ("..\\..\\boot.ini", "filename=\"boot.ini\""), ("/etc/shadow", "filename=\"shadow\""), ("..", nil),
            (".bashrc", "filename=\"bashrc\""), ("a\r\nX-Evil: 1", "filename=\"aX-Evil: 1\""),
            ("a\0b", "filename=\"ab\""),
            ("say \"x\"; filename=y", "filename*=utf-8''say%20%22x%22%3B%20filename%3Dy"),
            ("schön.png", "filename*=utf-8''sch%C3%B6n.png"), ("gpj.\u{202E}exe", "filename=\"gpj.exe\""),
        ] as [(String, String?)])
    func names(name: String, shown: String?) async throws {
        let expected = shown.map { "attachment; \($0)" } ?? "attachment"
        let uploaded = await upload([1], type: "application/x-test", name: name)
        #expect(header("Content-Disposition", await download(uploaded)) == expected)
        let other = await upload([1], type: "application/x-test", name: "other.bin")
        #expect(header("Content-Disposition", await download(other)) == "attachment; filename=\"other.bin\"")
        #expect(header("Content-Disposition", await download(other, name: name)) == expected)
        await client.server.close()
    }

    @Test(
        "A25: no path leads out of the store",
        arguments: [
            "localhost/..%2f..%2fetc%2fpasswd", "localhost/%2e%2e", "localhost/%252e%252e%252f", "..%2f../x",
            "127.0.0.1/..%2f..%2fservice", "localhost/a%00b", "localhost/",
        ])
    func paths(path: String) async throws {
        for base in ["client/v1/media/download", "media/v3/download", "media/r0/download"] {
            let answer = await client.ask(.GET, "/_matrix/\(base)/\(path)", token: alice)
            #expect(answer.status == 404 && answer.code != nil, "\(base): \(answer.summary)")
        }
        for base in ["client/v1/media/thumbnail", "media/v3/thumbnail"] {
            let answer = await client.ask(.GET, "/_matrix/\(base)/\(path)?width=32&height=32", token: alice)
            #expect(answer.status == 404, "\(base): \(answer.summary)")
        }
        await client.server.close()
    }

    @Test("a thumbnail is shown in place, with the type that it has")
    func thumbnails() async throws {
        let mediaID = await upload(Pictures.png(400, 300), type: "text/html", name: "evil.html")
        let path = "/_matrix/client/v1/media/thumbnail/localhost/\(mediaID)"
        let answer = await client.ask(.GET, "\(path)?width=64&height=64&method=crop&animated=true", token: alice)
        expectSafe(answer, "inline")
        #expect(header("Content-Type", answer) == "image/jpeg")
        #expect(header("Content-Disposition", answer) == "inline; filename=\"thumbnail.jpeg\"")
        for query in [
            "width=64", "height=64", "width=a&height=1", "width=0&height=1", "width=1&height=1&method=x",
            "width=1&height=1&animated=maybe",
        ] {
            #expect(await client.ask(.GET, "\(path)?\(query)", token: alice).status == 400, "\(query)")
        }
        // Without an access token there is nothing of it.
        #expect(await client.ask(.GET, "\(path)?width=64&height=64").code == "M_MISSING_TOKEN")
        #expect(
            await client.ask(.GET, "/_matrix/media/v3/thumbnail/localhost/\(mediaID)?width=64&height=64").code
                == "M_NOT_FOUND")
        #expect(await client.ask(.GET, "/_matrix/media/v3/download/localhost/\(mediaID)").code == "M_NOT_FOUND")
        let text = await upload(Array("text".utf8), type: "image/png")
        let refused = await client.ask(
            .GET, "/_matrix/client/v1/media/thumbnail/localhost/\(text)?width=64&height=64", token: alice)
        #expect(refused.status == 400 && refused.code == "M_UNKNOWN")
        await client.server.close()
    }

    @Test("an ID can be asked for before its content comes")
    func pending() async throws {
        let bob = await client.register("bob")
        let created = await client.ask(.POST, "/_matrix/media/v1/create", alice, [:])
        #expect(created.json["unused_expires_at"]?.integerValue == client.server.clock.now + 86_400_000)
        let mediaID = String((created.json["content_uri"]?.stringValue ?? "").dropFirst("mxc://localhost/".count))
        let download = "/_matrix/client/v1/media/download/localhost/\(mediaID)?timeout_ms=0"
        let early = await client.ask(.GET, download, token: bob)
        #expect(early.status == 504 && early.code == "M_NOT_YET_UPLOADED")
        let place = "/_matrix/media/v3/upload/localhost/\(mediaID)"
        #expect(await client.ask(.PUT, place, token: bob, raw: [1]).code == "M_FORBIDDEN")
        #expect(await client.ask(.PUT, "\(place)x", token: alice, raw: [1]).code == "M_NOT_FOUND")
        let other = "/_matrix/media/v3/upload/other.example/\(mediaID)"
        #expect(await client.ask(.PUT, other, token: alice, raw: [1]).code == "M_NOT_FOUND")
        #expect(await client.ask(.PUT, place, token: alice, raw: [1]).status == 200)
        let again = await client.ask(.PUT, place, token: alice, raw: [1])
        #expect(again.status == 409 && again.code == "M_CANNOT_OVERWRITE_MEDIA")
        #expect(await client.ask(.GET, download, token: bob).status == 200)
        await client.server.close()
    }

    @Test("parts of a file are served, and a file that the client has is not served again")
    func parts() async throws {
        let mediaID = await upload(Array(0..<100), type: "video/mp4")
        let path = "/_matrix/client/v1/media/download/localhost/\(mediaID)"
        func ask(_ headers: [(String, String)]) async -> Response {
            await client.router.respond(
                to: Request(
                    .GET, path, headers: HTTPHeaders(headers + [("Authorization", "Bearer \(alice)")]), id: "test",
                    eventLoop: MultiThreadedEventLoopGroup.singleton.next()))
        }
        func part(_ response: Response) -> [Int64]? {
            guard case .file(_, let offset, let size) = response.body else { return nil }
            return [offset, size]
        }
        for (range, status, expected, shown) in [
            ("bytes=0-9", 206, [0, 10], "bytes 0-9/100"), ("bytes=90-", 206, [90, 10], "bytes 90-99/100"),
            ("bytes=-5", 206, [95, 5], "bytes 95-99/100"), ("bytes=50-1000", 206, [50, 50], "bytes 50-99/100"),
            ("bytes=-1000", 206, [0, 100], "bytes 0-99/100"), ("bytes=100-", 416, nil, "bytes */100"),
            ("bytes=-0", 416, nil, "bytes */100"), ("bytes=5-4", 200, [0, 100], nil),
            ("bytes=0-1,3-4", 200, [0, 100], nil), ("bytes=a-b", 200, [0, 100], nil), ("bytes=-", 200, [0, 100], nil),
            ("bytes=99999999999999999999-", 200, [0, 100], nil), ("lines=1-2", 200, [0, 100], nil),
            ("bytes=+1-2", 200, [0, 100], nil),
        ] as [(String, Int, [Int64]?, String?)] {
            let response = await ask([("Range", range)])
            #expect(response.status.code == UInt(status), "\(range)")
            #expect(part(response) == expected, "\(range)")
            #expect(response.headers.first(name: "Content-Range") == shown, "\(range)")
        }
        let tag = await ask([]).headers.first(name: "ETag") ?? ""
        #expect(await ask([("Range", "bytes=0-9"), ("If-Range", tag)]).status == .partialContent)
        #expect(await ask([("Range", "bytes=0-9"), ("If-Range", "\"other\"")]).status == .ok)
        let known = await ask([("If-None-Match", tag)])
        #expect(known.status == .notModified && part(known) == nil)
        await client.server.close()
    }
}
