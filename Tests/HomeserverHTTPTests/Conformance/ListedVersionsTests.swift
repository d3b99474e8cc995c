import Foundation
import MatrixCore
import NIOHTTP1
import RoostTestSupport
import Testing

@testable import HomeserverHTTP

/// Which versions of the specification `GET /versions` may list: `docs/versions.md` tells the rule, `Facts/versions.json` what
/// it is applied to.
@Suite("The versions that are listed")
struct ListedVersionsTests {
    private let numbered: [String]
    private let first: String
    private let optional: Set<String>
    private let needs: [(since: String, test: String)]
    private let table = ConformanceTable.shared

    init() throws {
        let file = ConformanceTable.root.appendingPathComponent(
            "Tests/HomeserverHTTPTests/Conformance/Facts/versions.json")
        let json = try JSONDocument(parsing: [UInt8](try Data(contentsOf: file))).root.json
        numbered = json["numbered"]?.arrayValue?.compactMap(\.stringValue) ?? []
        first = json["first"]?.stringValue ?? ""
        optional = Set(json["optional"]?.objectValue?.map(\.key) ?? [])
        needs = (json["needs"]?.arrayValue ?? []).map {
            ($0["since"]?.stringValue ?? "", $0["test"]?.stringValue ?? "")
        }
    }

    /// The place of a version among those that are numbered; 0 for what is older than all of them.
    private func place(of version: String?) throws -> Int {
        guard let version else { return 0 }
        return try #require(numbered.firstIndex(of: version), "no version is called \(version)") + 1
    }

    @Test("a version is listed once all is there that a client of it can't do without, and not before")
    func listed() async throws {
        let client = ClientSession(try await TestServer())
        let implemented = Set(table.implemented(by: ClientAPI(client.server.homeserver).endpoints).map(\.name))
        let tests = try Self.titles()
        var missing = numbered.count + 1
        for operation in table.operations
        where !optional.contains(operation.name) && !implemented.contains(operation.name) {
            missing = min(missing, try place(of: operation.since))
        }
        for need in needs where !tests.contains(need.test) { missing = min(missing, try place(of: need.since)) }
        let expected = ([first] + numbered.map { "v\($0)" }).prefix(missing)
        let answer = await client.ask(.GET, "/_matrix/client/versions")
        #expect(answer.json["versions"]?.arrayValue?.compactMap(\.stringValue) == Array(expected))
        await client.server.close()
    }

    @Test("what is optional and not there answers as what doesn't exist; all of it is in the table, and isn't there")
    func absent() async throws {
        let client = ClientSession(try await TestServer())
        let alice = await client.register("alice")
        let implemented = Set(table.implemented(by: ClientAPI(client.server.homeserver).endpoints).map(\.name))
        #expect(optional.isSubset(of: table.operations.map(\.name)))
        #expect(optional.intersection(implemented) == [], "it is there, and needn't be called optional any more")
        for operation in table.operations where optional.contains(operation.name) {
            let path = operation.path.replacing("{idpId}", with: "provider")
            let answer = await client.ask(HTTPMethod(rawValue: operation.method), path, token: alice)
            #expect(answer.status == 404 && answer.code == "M_UNRECOGNIZED", "\(operation.name): \(answer.summary)")
        }
        await client.server.close()
    }

    @Test("what is older than the numbered versions is also there under its older name")
    func olderNames() async throws {
        let endpoints = ClientAPI(try await TestServer().homeserver).endpoints
        for operation in table.operations where operation.since == nil && !optional.contains(operation.name) {
            let older = ConformanceTable.Operation(operation, path: operation.path.replacing("/v3/", with: "/r0/"))
            #expect(table.isImplemented(older, by: endpoints), "\(older.name)")
        }
    }

    /// The titles of all tests.
    private static func titles() throws -> Set<String> {
        let files = try #require(
            FileManager.default.enumerator(
                at: ConformanceTable.root.appendingPathComponent("Tests"), includingPropertiesForKeys: nil))
        var titles: Set<String> = []
        for case let file as URL in files where file.pathExtension == "swift" {
            let source = try String(contentsOf: file, encoding: .utf8)
            titles.formUnion(source.matches(of: /@Test\(\s*"([^"\n]*)"/).map { String($0.1) })
        }
        return titles
    }
}
