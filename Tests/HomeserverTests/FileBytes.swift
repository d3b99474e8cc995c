#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

struct UnreadableFile: Error {}

/// All bytes of a file.
func fileBytes(_ path: String) throws -> [UInt8] {
    guard let file = fopen(path, "rb") else { throw UnreadableFile() }
    defer { fclose(file) }
    fseek(file, 0, SEEK_END)
    var bytes = [UInt8](repeating: 0, count: ftell(file))
    rewind(file)
    guard fread(&bytes, 1, bytes.count, file) == bytes.count else { throw UnreadableFile() }
    return bytes
}

func contains(_ bytes: [UInt8], _ text: String) -> Bool {
    let text = Array(text.utf8)
    return bytes.withUnsafeBufferPointer { bytes in
        var start = 0
        while start + text.count <= bytes.count {
            if bytes[start] == text[0], bytes[start..<start + text.count].elementsEqual(text) { return true }
            start += 1
        }
        return false
    }
}
