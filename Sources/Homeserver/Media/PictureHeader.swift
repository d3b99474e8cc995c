/// What the beginning of a picture says of it, read before any decoder sees the file.
///
/// Only the kinds of pictures that are decoded here are known: everything else, whatever its uploader called it, is no
/// picture. Reading is bounded in time and memory whatever the file contains.
struct PictureHeader: Equatable, Sendable {
    enum Format: String, Sendable, CaseIterable {
        case png, jpeg, gif, webp

        var contentType: String { "image/\(rawValue)" }
    }

    var format: Format
    var width: Int
    var height: Int
    /// Pictures that follow one another; 1 for one that stands still. Not counted further than ``mostFrames`` and one.
    var frames = 1
    /// Whether clients that know the format show it moving.
    var isAnimated = false

    /// Whether its first row isn't complete before most of the file has been read: interlaced PNG, progressive JPEG. Decoders then hold
    /// the whole picture, with up to eight bytes for each pixel.
    var isHeldWhole = false

    /// The most pictures of an animation.
    static let mostFrames = 1_000

    /// A file, or bytes in memory: `read(offset, count)` answers up to `count` bytes from `offset` on.
    struct Source {
        let size: Int
        let read: (_ offset: Int, _ count: Int) -> [UInt8]

        init(size: Int, read: @escaping (_ offset: Int, _ count: Int) -> [UInt8]) {
            self.size = size
            self.read = read
        }

        init(_ bytes: [UInt8]) {
            self.init(size: bytes.count) { offset, count in
                Array(bytes[min(offset, bytes.count)..<min(offset + count, bytes.count)])
            }
        }

        /// Exactly so many bytes, or nil.
        fileprivate func bytes(_ offset: Int, _ count: Int) -> [UInt8]? {
            let found = read(offset, count)
            return found.count == count ? found : nil
        }
    }

    /// nil for what is no picture of a known kind, or broken at its beginning.
    init?(_ source: Source) {
        let start = source.read(0, 16)
        if start.starts(with: [0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A]) {
            self.init(png: source)
        } else if start.starts(with: [0xFF, 0xD8, 0xFF]) {
            self.init(jpeg: source)
        } else if start.starts(with: Array("GIF87a".utf8)) || start.starts(with: Array("GIF89a".utf8)) {
            self.init(gif: source)
        } else if start.count == 16, start.starts(with: Array("RIFF".utf8)), start[8..<12].elementsEqual("WEBP".utf8) {
            self.init(webp: source)
        } else {
            return nil
        }
        guard width > 0, height > 0 else { return nil }
    }

    /// Chunks, segments and the like that are looked at before giving up.
    private static let mostSteps = 4_000

    private init(_ format: Format, width: Int, height: Int) {
        self.format = format
        self.width = width
        self.height = height
    }

    // PNG (W3C) §5: chunks of length, type, data and CRC; IHDR is the first, acTL (APNG) stands before IDAT.
    private init?(png source: Source) {
        guard let header = source.bytes(8, 21), header[4..<8].elementsEqual("IHDR".utf8) else { return nil }
        self.init(.png, width: header.big(8, 4), height: header.big(12, 4))
        isHeldWhole = header[20] != 0
        var offset = 8
        for _ in 0..<Self.mostSteps {
            guard let chunk = source.bytes(offset, 8) else { return nil }
            if chunk[4..<8].elementsEqual("IDAT".utf8) { return }
            if chunk[4..<8].elementsEqual("acTL".utf8) { isAnimated = true }
            offset += 12 + chunk.big(0, 4)
        }
        return nil
    }

    // JPEG (ITU-T T.81) Annex B: marker segments; a start of frame tells the size.
    private init?(jpeg source: Source) {
        var offset = 2
        for _ in 0..<Self.mostSteps {
            guard let head = source.bytes(offset, 2), head[0] == 0xFF else { return nil }
            switch head[1] {
            case 0xFF: offset += 1
            case 0x01, 0xD0...0xD7: offset += 2
            case 0xC0...0xC3, 0xC5...0xC7, 0xC9...0xCB, 0xCD...0xCF:
                guard let frame = source.bytes(offset + 2, 7) else { return nil }
                self.init(.jpeg, width: frame.big(5, 2), height: frame.big(3, 2))
                // The last two bits tell sequential, progressive and lossless apart.
                isHeldWhole = head[1] & 3 > 1
                return
            // The scan begins, or the file ends, without a frame.
            case 0xD8, 0xD9, 0xDA: return nil
            default:
                guard let length = source.bytes(offset + 2, 2), length.big(0, 2) >= 2 else { return nil }
                offset += 2 + length.big(0, 2)
            }
        }
        return nil
    }

    // GIF89a, Appendix A: the logical screen, then blocks up to the trailer.
    private init?(gif source: Source) {
        let bytes = source.read(0, source.size)
        guard bytes.count > 13 else { return nil }
        self.init(.gif, width: bytes.little(6, 2), height: bytes.little(8, 2))
        frames = 0
        var offset = 13 + Self.gifColours(bytes[10])
        func skipBlocks() {
            while offset < bytes.count, bytes[offset] != 0 { offset += Int(bytes[offset]) + 1 }
            offset += 1
        }
        while offset < bytes.count, frames <= Self.mostFrames {
            switch bytes[offset] {
            case 0x21:
                offset += 2
                skipBlocks()
            case 0x2C:
                guard offset + 10 < bytes.count else { return nil }
                frames += 1
                // Frames may be larger than the screen that was announced.
                width = max(width, bytes.little(offset + 1, 2) + bytes.little(offset + 5, 2))
                height = max(height, bytes.little(offset + 3, 2) + bytes.little(offset + 7, 2))
                offset += 11 + Self.gifColours(bytes[offset + 9])
                skipBlocks()
            case 0x3B: offset = bytes.count
            default: return nil
            }
        }
        guard frames > 0 else { return nil }
        isAnimated = frames > 1
    }

    private static func gifColours(_ flags: UInt8) -> Int { flags & 0x80 == 0 ? 0 : 3 << (Int(flags & 7) + 1) }

    // WebP container: VP8X says more of what follows, VP8 and VP8L are single pictures.
    private init?(webp source: Source) {
        guard let head = source.bytes(12, 18) else { return nil }
        switch String(decoding: head[..<4], as: UTF8.self) {
        case "VP8X":
            self.init(.webp, width: head.little(12, 3) + 1, height: head.little(15, 3) + 1)
            guard head[8] & 0x02 != 0 else { return }
            isAnimated = true
            frames = 0
            var offset = 12
            // Between the frames there may be other chunks, but not many.
            for _ in 0..<Self.mostSteps {
                guard frames <= Self.mostFrames, let chunk = source.bytes(offset, 8) else { break }
                if chunk[..<4].elementsEqual("ANMF".utf8) { frames += 1 }
                offset += 8 + chunk.little(4, 4) + chunk.little(4, 4) % 2
            }
            guard frames > 0 else { return nil }
        case "VP8L":
            guard head[8] == 0x2F else { return nil }
            let bits = head.little(9, 4)
            self.init(.webp, width: bits & 0x3FFF + 1, height: bits >> 14 & 0x3FFF + 1)
        case "VP8 ":
            guard head[11...13].elementsEqual([0x9D, 0x01, 0x2A]) else { return nil }
            self.init(.webp, width: head.little(14, 2) & 0x3FFF, height: head.little(16, 2) & 0x3FFF)
        default: return nil
        }
    }
}

extension [UInt8] {
    fileprivate func big(_ offset: Int, _ count: Int) -> Int {
        self[offset..<offset + count].reduce(0) { $0 << 8 | Int($1) }
    }

    fileprivate func little(_ offset: Int, _ count: Int) -> Int {
        self[offset..<offset + count].reversed().reduce(0) { $0 << 8 | Int($1) }
    }
}
