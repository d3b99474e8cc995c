import Foundation
import Synchronization
import Testing

@testable import HomeserverHTTP

/// Holds the answers that tests get against the table of facts, and notes which operations they exercised.
enum Conformance {
    /// Records an issue for each place where the answer departs from the specification.
    static func check(_ method: String, _ target: String, _ response: Response, at sourceLocation: SourceLocation) {
        // With a delay it is a request of MSC4140, which has an answer of its own.
        if target.contains("org.matrix.msc4140.delay=") { return }
        let path = target.prefix { $0 != "?" }
        guard let operation = ConformanceTable.shared.operation(method, path) else { return }
        let status = Int(response.status.code)
        var bytes: [UInt8] = []
        var isFile = true
        switch response.body {
        case .bytes(let body): (bytes, isFile) = (body, false)
        case .none: isFile = false
        case .file, .stream: break
        }
        for violation in operation.violations(status: status, body: bytes, isFile: isFile)
        where !KnownDepartures.contains(operation, status, violation) {
            Issue.record("\(operation.name), \(status): \(violation)", sourceLocation: sourceLocation)
        }
        if status < 400 { Recordings.note(operation) }
    }
}

/// Which test suites exercise which operations with success, for `scripts/conformance`.
enum Recordings {
    /// The folder that `scripts/conformance` names; without it nothing is written down.
    static let folder = ProcessInfo.processInfo.environment["ROOST_CONFORMANCE_RECORDINGS"]

    /// Lines that were written already. The mutex also keeps two of them from being written into each other.
    private static let written = Mutex<Set<String>>([])

    static func note(_ operation: ConformanceTable.Operation) {
        guard let folder, let test = Test.current else { return }
        // A test's identifier reads Module.Suite/test()/File.swift:line:column.
        let suite = String(describing: test.id).split(separator: "/").first?.split(separator: ".").last ?? "?"
        write("\(operation.name)\t\(suite)", to: "\(folder)/exercised")
    }

    /// - Parameter prefix: of the names of the files.
    static func writeEndpoints(_ implemented: Set<String>, beyond: [String], prefix: String = "") {
        guard let folder else { return }
        for operation in implemented { write(operation, to: "\(folder)/\(prefix)implemented") }
        for pattern in beyond { write(pattern, to: "\(folder)/\(prefix)beyond") }
    }

    private static func write(_ line: String, to path: String) {
        written.withLock { written in
            guard written.insert("\(path)\n\(line)").inserted, let file = fopen(path, "a") else { return }
            fputs("\(line)\n", file)
            fclose(file)
        }
    }
}

/// Departures that are known and meant, each with its reason.
enum KnownDepartures {
    private struct Departure {
        let operation: String
        let status: Int
        let path: String
    }

    private static let all: [Departure] =
        // Without a TURN server there are no credentials, and the specification names no answer for that; clients take
        // the empty object for “none”.
        ["uris", "ttl", "username", "password"].map {
            Departure(operation: "GET /_matrix/client/v3/voip/turnServer", status: 200, path: ".\($0)")
        }

    static func contains(_ operation: ConformanceTable.Operation, _ status: Int, _ violation: Fact.Violation) -> Bool {
        all.contains { $0.operation == operation.name && $0.status == status && violation.path.hasSuffix($0.path) }
    }
}
