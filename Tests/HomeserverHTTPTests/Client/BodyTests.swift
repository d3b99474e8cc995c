import MatrixCore
import NIOCore
import NIOHTTP1
import RoostTestSupport
import Testing

@testable import Homeserver
@testable import HomeserverHTTP

/// Bodies that are something else than they should be, sent to every operation that takes one.
@Suite("Bodies that aren't what an operation takes")
struct BodyTests {
    /// A gzip file of so many zeros: a thousandth of their size.
    private static func bomb(_ megabytes: Int) -> [UInt8] {
        var bytes: [UInt8] = [0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 3]
        var bits: UInt32 = 0
        var count = 0
        /// Bits as deflate packs them, the first at the bottom.
        func put(_ code: [UInt32]) {
            for bit in code {
                bits |= bit << UInt32(count)
                count += 1
                if count == 8 {
                    bytes.append(UInt8(bits))
                    (bits, count) = (0, 0)
                }
            }
        }
        // One last block with fixed codes: a zero, then “the last byte, 258 times” again and again, then the end.
        put([1, 1, 0])
        put([0, 0, 1, 1, 0, 0, 0, 0])
        for _ in 0..<megabytes * 1_000_000 / 258 { put([1, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0]) }
        put([0, 0, 0, 0, 0, 0, 0, 0])
        return bytes + [0, 0, 0, 0, 0, 0, 0, 0]
    }

    private static let flood =
        (0..<2_000).map { "--x\r\nContent-Disposition: form-data; name=\"\($0)\"\r\n\r\n{}\r\n" }.joined() + "--x--\r\n"

    @Test(
        "A18: compressed bombs, floods of parts and forms are refused as no JSON, by every operation, and change nothing"
    )
    func everyOperation() async throws {
        let scene = try await GeneratedInputScene()
        let before = await scene.snapshot()
        let bomb = Self.bomb(20)
        #expect(bomb.count < 150_000)
        let bodies: [(what: String, headers: [(String, String)], bytes: [UInt8])] = [
            ("gzip", [("Content-Encoding", "gzip"), ("Content-Type", "application/json")], bomb),
            ("deflate", [("Content-Encoding", "deflate")], Array(bomb.dropFirst(10))),
            ("parts", [("Content-Type", "multipart/form-data; boundary=x")], Array(Self.flood.utf8)),
            ("form", [("Content-Type", "application/x-www-form-urlencoded")], Array("username=alice&password=x".utf8)),
            ("XML", [("Content-Type", "text/xml")], Array("<!DOCTYPE a [<!ENTITY b \"c\">]><a>&b;</a>".utf8)),
            ("UTF-16", [("Content-Type", "application/json; charset=utf-16")], [0xFF, 0xFE, 0x7B, 0, 0x7D, 0]),
        ]
        for operation in scene.operations where operation.takesJSON {
            for body in bodies {
                let answer = await scene.client.ask(
                    HTTPMethod(rawValue: operation.method), scene.path(operation) + scene.query(operation),
                    token: scene.alice.token, raw: body.bytes, headers: body.headers)
                #expect(
                    (answer.status, answer.code) == (400, "M_NOT_JSON")
                        || (answer.status, answer.code) == (413, "M_TOO_LARGE") && body.bytes.count > 65_536,
                    "\(operation.name), \(body.what): \(answer.summary)")
            }
        }
        let after = await scene.snapshot()
        for (operation, answer) in before {
            #expect(after[operation] == answer, "\(operation) answers something else than before")
        }
        await scene.client.server.close()
    }

    @Test(
        "JSON is taken whatever its content type says, and an upload is what was sent, neither unpacked nor taken apart"
    )
    func contentTypes() async throws {
        let client = ClientSession(try await TestServer())
        let alice = await client.register("alice")
        for type in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""] {
            let answer = await client.ask(
                .POST, "/_matrix/client/v3/createRoom", token: alice, [:], headers: [("Content-Type", type)])
            #expect(answer.status == 200, "\(type): \(answer.summary)")
        }
        for (headers, bytes) in [
            ([("Content-Encoding", "gzip"), ("Content-Type", "text/plain")], Self.bomb(20)),
            ([("Content-Type", "multipart/form-data; boundary=x")], Array(Self.flood.utf8)),
        ] {
            let answer = await client.ask(
                .POST, "/_matrix/media/v3/upload", token: alice, raw: bytes, headers: headers)
            let id = answer.json["content_uri"]?.stringValue?.split(separator: "/").last.map(String.init) ?? ""
            #expect(answer.status == 200)
            let file = try await client.server.homeserver.media.download(
                .init(server: "localhost", mediaID: id))
            #expect(file.size == bytes.count)
        }
        await client.server.close()
    }

    @Test(
        "A27: nothing that a client says becomes a header or ends one, on any path: line breaks in paths, queries and names"
    )
    func headerInjection() async throws {
        let scene = try await GeneratedInputScene()
        let evil = "x\r\nX-Evil: yes\r\n\r\n"
        func expectClean(_ headers: HTTPHeaders, _ what: String) {
            #expect(headers["X-Evil"].isEmpty, "\(what)")
            for (name, value) in headers {
                #expect(!value.utf8.contains { $0 == 0x0D || $0 == 0x0A || $0 == 0 }, "\(what): \(name)")
            }
        }
        for operation in scene.operations {
            for parameter in operation.pathParameters {
                let answer = await scene.ask(
                    operation, path: scene.path(operation, replacing: [parameter.name: evil]))
                expectClean(answer.headers, "\(operation.name) \(parameter.name)")
            }
            for parameter in operation.queryParameters {
                let answer = await scene.ask(
                    operation, query: scene.query(operation, replacing: [parameter.name: evil]))
                expectClean(answer.headers, "\(operation.name) ?\(parameter.name)")
            }
        }
        // What is kept and sent later: the name and type of a file.
        let token = scene.alice.token
        let name = GeneratedInputScene.encoded(evil)
        let upload = await scene.client.ask(
            .POST, "/_matrix/media/v3/upload?filename=\(name)", token: token, raw: [1, 2, 3],
            headers: [("Content-Type", "text/plain; x=\u{85}\u{0D}X-Evil: yes")])
        let id = upload.json["content_uri"]?.stringValue?.split(separator: "/").last.map(String.init) ?? ""
        #expect(upload.status == 200)
        for path in ["\(id)", "\(id)/\(name)"] {
            let answer = await scene.client.ask(
                .GET, "/_matrix/client/v1/media/download/localhost/\(path)", token: token)
            #expect(answer.status == 200)
            expectClean(answer.headers, path)
        }
        await scene.client.server.close()
    }
}
