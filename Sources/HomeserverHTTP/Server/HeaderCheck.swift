import NIOHTTP1

/// What RFC 9110 §5 allows in the names and values of headers.
enum HeaderCheck {
    /// The name of the first header that must not be sent.
    static func fault(in headers: HTTPHeaders) -> String? {
        headers.first { !isValid($0.name, $0.value) }?.name
    }

    static func valid(_ headers: HTTPHeaders) -> HTTPHeaders {
        HTTPHeaders(headers.filter { isValid($0.name, $0.value) }.map { ($0.name, $0.value) })
    }

    private static func isValid(_ name: String, _ value: String) -> Bool {
        !name.isEmpty && name.utf8.allSatisfy(isToken)
            && value.utf8.allSatisfy { $0 >= 0x20 && $0 != 0x7F || $0 == UInt8(ascii: "\t") }
    }

    private static func isToken(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x41...0x5A, 0x61...0x7A: true
        default: "!#$%&'*+-.^_`|~".utf8.contains(byte)
        }
    }
}
