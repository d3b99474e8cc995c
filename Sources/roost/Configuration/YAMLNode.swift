import CYAML

/// A value of a YAML document, with the line it stands on.
struct YAMLNode {
    indirect enum Content {
        /// A text, and whether it was written without quotes: `true` is a truth value, `"true"` is a text.
        case scalar(String, isPlain: Bool)
        case sequence([YAMLNode])
        case mapping([(key: YAMLNode, value: YAMLNode)])
    }

    let content: Content
    let line: Int

    /// Whether nothing was written, or `null` or `~`.
    var isNull: Bool {
        if case .scalar(let text, isPlain: true) = content {
            ["", "~", "null", "Null", "NULL"].contains(text)
        } else {
            false
        }
    }
}

/// Reads YAML with libyaml into nodes.
enum YAMLReader {
    struct Failure: Error {
        let line: Int
        let reason: String
    }

    /// Anchors can make a small text stand for a huge tree; no configuration comes near these.
    private static let maximumDepth = 16
    private static let maximumNodes = 10_000

    /// - Returns: the root of the only document; nil when the text holds nothing.
    static func read(_ bytes: [UInt8]) throws(Failure) -> YAMLNode? {
        var parser = yaml_parser_t()
        guard yaml_parser_initialize(&parser) == 1 else { throw Failure(line: 1, reason: "not enough memory") }
        defer { yaml_parser_delete(&parser) }
        let result = bytes.withUnsafeBufferPointer { input -> Result<YAMLNode?, Failure> in
            yaml_parser_set_input_string(&parser, input.baseAddress, input.count)
            return readDocuments(&parser)
        }
        return try result.get()
    }

    private static func readDocuments(_ parser: inout yaml_parser_t) -> Result<YAMLNode?, Failure> {
        var document = yaml_document_t()
        guard yaml_parser_load(&parser, &document) == 1 else { return .failure(failure(of: parser)) }
        defer { yaml_document_delete(&document) }
        guard let root = yaml_document_get_root_node(&document) else { return .success(nil) }
        var count = 0
        do throws(Failure) {
            let node = try convert(root, of: &document, depth: 0, count: &count)
            var next = yaml_document_t()
            guard yaml_parser_load(&parser, &next) == 1 else { return .failure(failure(of: parser)) }
            defer { yaml_document_delete(&next) }
            if let second = yaml_document_get_root_node(&next) {
                throw Failure(
                    line: line(of: second), reason: "a second document begins here; write everything into one")
            }
            return .success(node)
        } catch {
            return .failure(error)
        }
    }

    private static func convert(
        _ node: UnsafeMutablePointer<yaml_node_t>, of document: inout yaml_document_t, depth: Int, count: inout Int
    ) throws(Failure) -> YAMLNode {
        count += 1
        guard depth <= maximumDepth, count <= maximumNodes else {
            throw Failure(line: line(of: node), reason: "this is nested too deeply or repeats too much")
        }
        let content: YAMLNode.Content
        switch node.pointee.type {
        case YAML_SEQUENCE_NODE:
            var elements: [YAMLNode] = []
            var item = node.pointee.data.sequence.items.start
            while let current = item, current != node.pointee.data.sequence.items.top {
                elements.append(try convert(current.pointee, of: &document, depth: depth, count: &count))
                item = current + 1
            }
            content = .sequence(elements)
        case YAML_MAPPING_NODE:
            var members: [(key: YAMLNode, value: YAMLNode)] = []
            var pair = node.pointee.data.mapping.pairs.start
            while let current = pair, current != node.pointee.data.mapping.pairs.top {
                let key = try convert(current.pointee.key, of: &document, depth: depth, count: &count)
                members.append((key, try convert(current.pointee.value, of: &document, depth: depth, count: &count)))
                pair = current + 1
            }
            content = .mapping(members)
        default:
            let scalar = node.pointee.data.scalar
            let text = String(decoding: UnsafeBufferPointer(start: scalar.value, count: scalar.length), as: UTF8.self)
            content = .scalar(text, isPlain: scalar.style == YAML_PLAIN_SCALAR_STYLE)
        }
        return YAMLNode(content: content, line: line(of: node))
    }

    private static func convert(
        _ index: CInt, of document: inout yaml_document_t, depth: Int, count: inout Int
    ) throws(Failure) -> YAMLNode {
        guard let node = yaml_document_get_node(&document, index) else {
            throw Failure(line: 1, reason: "the document is incomplete")
        }
        return try convert(node, of: &document, depth: depth + 1, count: &count)
    }

    private static func line(of node: UnsafeMutablePointer<yaml_node_t>) -> Int {
        Int(node.pointee.start_mark.line) + 1
    }

    private static func failure(of parser: yaml_parser_t) -> Failure {
        let problem = parser.problem.map { String(cString: $0) } ?? "this isn't YAML"
        let line = parser.error == YAML_READER_ERROR ? 1 : Int(parser.problem_mark.line) + 1
        return Failure(line: line, reason: "not valid YAML: \(problem)")
    }
}
