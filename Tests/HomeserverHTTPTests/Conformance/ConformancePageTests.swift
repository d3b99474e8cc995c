import Foundation
import RoostTestSupport
import Testing

@testable import HomeserverHTTP

@Suite("The pages of conformance")
struct ConformancePageTests {
    @Test("docs/conformance-federation.md tells truly which operations are implemented; else run scripts/conformance")
    func federation() async throws {
        let server = try await TestServer()
        let endpoints = FederationAPI(server.homeserver).endpoints
        let table = ConformanceTable.federation
        let implemented = Set(table.implemented(by: endpoints).map(\.name))
        Recordings.writeEndpoints(implemented, beyond: table.patternsBeyond(endpoints), prefix: "federation-")
        let page = try String(
            contentsOf: ConformanceTable.root.appendingPathComponent("docs/conformance-federation.md"), encoding: .utf8)
        let rows = page.split(separator: "\n").filter { $0.hasPrefix("| `") }.map { $0.split(separator: "|") }
        func names(_ rows: [[Substring]]) -> Set<String> { Set(rows.map { String($0[0].split(separator: "`")[1]) }) }
        #expect(names(rows) == Set(table.operations.map(\.name)))
        #expect(names(rows.filter { $0[1] == " yes " }) == implemented)
        await server.close()
    }

    @Test("docs/conformance.md tells truly which operations are implemented; else run scripts/conformance")
    func implemented() async throws {
        let server = try await TestServer()
        let endpoints = ClientAPI(server.homeserver).endpoints
        let implemented = Set(ConformanceTable.shared.implemented(by: endpoints).map(\.name))
        Recordings.writeEndpoints(implemented, beyond: ConformanceTable.shared.patternsBeyond(endpoints))
        let page = try String(
            contentsOf: ConformanceTable.root.appendingPathComponent("docs/conformance.md"), encoding: .utf8)
        // | `GET /_matrix/…` | yes | Suites |
        let rows = page.split(separator: "\n").filter { $0.hasPrefix("| `") }.map { $0.split(separator: "|") }
        func names(_ rows: [[Substring]]) -> Set<String> { Set(rows.map { String($0[0].split(separator: "`")[1]) }) }
        #expect(names(rows) == Set(ConformanceTable.shared.operations.map(\.name)))
        let told = names(rows.filter { $0[1].contains("yes") })
        #expect(implemented.subtracting(told).sorted() == [], "implemented, but the page says no")
        #expect(told.subtracting(implemented).sorted() == [], "not implemented, but the page says yes")
        await server.close()
    }
}
