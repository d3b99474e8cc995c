import MatrixCore

extension Bench {
    /// The three texts of the figures that the parser was chosen by: an event, a sync, a large `send_join` answer.
    static func texts() throws -> [(name: String, bytes: [UInt8])] {
        let room = try BenchRoom(.v11)
        let event = try room.message(padTo: 878)
        var sync = JSONWriter()
        sync.beginArray()
        for _ in 0..<233 { sync.raw(event.json) }
        sync.endArray()
        var join = JSONWriter()
        join.beginObject()
        join.key("origin")
        join.string("example.org")
        join.key("state")
        join.beginArray()
        let member = try room.message(padTo: 800)
        for _ in 0..<2_001 { join.raw(member.json) }
        join.endArray()
        join.endObject()
        return [("878 B event", event.json), ("205 KB", sync.bytes), ("1.6 MB send_join", join.bytes)]
    }

    static func jsonSection() throws {
        for (name, bytes) in try texts() {
            let megabytes = Double(bytes.count) / 1e6
            let parse = try seconds { keep(try JSONDocument(parsing: bytes)) }
            report("parse, \(name)", megabytes / parse, "MB/s")
            let document = try JSONDocument(parsing: bytes)
            let canonical = try seconds { keep(try document.root.canonical()) }
            report("write canonical, \(name)", megabytes / canonical, "MB/s")
            let unsorted = try JSONDocument(parsing: reversed(document.root))
            report(
                "write canonical, keys not sorted, \(name)",
                megabytes / (try seconds { keep(try unsorted.root.canonical()) }), "MB/s")
        }
        let (_, event) = try texts()[0]
        let receive = try seconds {
            let document = try JSONDocument(parsing: event)
            let root = document.root
            keep((root["type"]?.string, root["sender"]?.string, root["room_id"]?.string, root["depth"]?.integer))
            keep(Hashing.sha256(try root.canonical(omitting: ["signatures", "unsigned"])))
        }
        report("parse, 4 fields, drop 2, canonical, SHA-256, 878 B event", Double(event.count) / 1e6 / receive, "MB/s")
    }

    /// The same value with the members of every object in descending order.
    static func reversed(_ view: JSONView) -> [UInt8] {
        var writer = JSONWriter()
        func write(_ view: JSONView) {
            switch view.kind {
            case .array:
                writer.beginArray()
                for element in view.elements { write(element) }
                writer.endArray()
            case .object:
                writer.beginObject()
                for (key, value) in view.members.reversed() {
                    writer.key(key)
                    write(value)
                }
                writer.endObject()
            default: writer.raw(view.raw)
            }
        }
        write(view)
        return writer.bytes
    }
}
