import Foundation
import RoostTestSupport
import Testing

@testable import HomeserverHTTP

@Suite("docs/conformance.md")
struct ConformancePageTests {
    @Test("tells truly which operations are implemented; else run scripts/conformance")
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
