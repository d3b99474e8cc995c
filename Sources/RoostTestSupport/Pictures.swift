/// Pictures made for tests, byte by byte.
public enum Pictures {
    private static func big(_ value: Int) -> [UInt8] {
        [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: value >> $0) }
    }

    private static func little(_ value: Int) -> [UInt8] { [0, 8].map { UInt8(truncatingIfNeeded: value >> $0) } }

    private static func crc(_ bytes: [UInt8]) -> [UInt8] {
        var crc: UInt32 = 0xFFFF_FFFF
        for byte in bytes {
            crc ^= UInt32(byte)
            for _ in 0..<8 { crc = crc & 1 == 1 ? crc >> 1 ^ 0xEDB8_8320 : crc >> 1 }
        }
        return big(Int(crc ^ 0xFFFF_FFFF))
    }

    public static func pngChunk(_ type: String, _ data: [UInt8]) -> [UInt8] {
        let body = Array(type.utf8) + data
        return big(data.count) + body + crc(body)
    }

    /// zlib without compression.
    private static func stored(_ data: [UInt8]) -> [UInt8] {
        var bytes: [UInt8] = [0x78, 0x01]
        for start in stride(from: 0, to: max(data.count, 1), by: 65_535) {
            let block = data[start..<min(start + 65_535, data.count)]
            bytes.append(start + 65_535 >= data.count ? 1 : 0)
            bytes += little(block.count) + little(~block.count) + block
        }
        var a = 1, b = 0
        for byte in data {
            a = (a + Int(byte)) % 65_521
            b = (b + a) % 65_521
        }
        return bytes + big(b << 16 | a)
    }

    /// The head of a PNG that announces a size, up to its content.
    public static func pngHead(
        _ width: Int, _ height: Int, hasAlpha: Bool = false, isInterlaced: Bool = false
    ) -> [UInt8] {
        [0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A]
            + pngChunk("IHDR", big(width) + big(height) + [8, hasAlpha ? 6 : 2, 0, 0, isInterlaced ? 1 : 0])
    }

    /// A gradient.
    ///
    /// - Parameter chunks: chunks between the head and the content.
    public static func png(_ width: Int, _ height: Int, hasAlpha: Bool = false, chunks: [UInt8] = []) -> [UInt8] {
        var rows: [UInt8] = []
        for y in 0..<height {
            rows.append(0)
            for x in 0..<width {
                rows += [UInt8(truncatingIfNeeded: x), UInt8(truncatingIfNeeded: y), 128]
                if hasAlpha { rows.append(UInt8(truncatingIfNeeded: x + y)) }
            }
        }
        return pngHead(width, height, hasAlpha: hasAlpha) + chunks + pngChunk("IDAT", stored(rows))
            + pngChunk("IEND", [])
    }

    /// A GIF of two colours, whose frames are each of one of them.
    ///
    /// - Parameter screen: the size that is announced, if it isn't that of the frames.
    public static func gif(
        _ width: Int, _ height: Int, frames: Int, screen: (width: Int, height: Int)? = nil
    ) -> [UInt8] {
        let screen = screen ?? (width, height)
        var bytes = Array("GIF89a".utf8) + little(screen.width) + little(screen.height)
        bytes += [0xF0, 0, 0, 255, 0, 0, 0, 255, 0]
        for frame in 0..<frames {
            bytes += [0x21, 0xF9, 4, 4, 10, 0, 0, 0, 0x2C, 0, 0, 0, 0] + little(width) + little(height) + [0, 2]
            var codes: [UInt8] = [], bits = 0, count = 0
            func emit(_ code: Int) {
                bits |= code << count
                count += 3
                while count >= 8 {
                    codes.append(UInt8(bits & 255))
                    bits >>= 8
                    count -= 8
                }
            }
            // A clear code before every other pixel keeps the codes at three bits.
            for pixel in 0..<width * height {
                if pixel % 2 == 0 { emit(4) }
                emit(frame % 2)
            }
            emit(5)
            codes.append(UInt8(bits & 255))
            for start in stride(from: 0, to: codes.count, by: 255) {
                let block = codes[start..<min(start + 255, codes.count)]
                bytes += [UInt8(block.count)] + block
            }
            bytes.append(0)
        }
        return bytes + [0x3B]
    }

    /// A JPEG as far as its size.
    public static func jpegHead(_ width: Int, _ height: Int, isProgressive: Bool = false) -> [UInt8] {
        [0xFF, 0xD8, 0xFF, 0xE0, 0, 4, 0, 0, 0xFF, isProgressive ? 0xC2 : 0xC0, 0, 11, 8] + little(height).reversed()
            + little(width).reversed() + [1, 1, 0x11, 0]
    }

    /// A WebP's extended header that announces a size, and so many frames without content.
    public static func webpHead(_ width: Int, _ height: Int, frames: Int = 0) -> [UInt8] {
        func size(_ value: Int) -> [UInt8] { [0, 8, 16].map { UInt8(truncatingIfNeeded: (value - 1) >> $0) } }
        let chunk = Array("VP8X".utf8) + [10, 0, 0, 0, frames > 0 ? 2 : 0, 0, 0, 0] + size(width) + size(height)
        let frame = Array("ANMF".utf8) + [0, 0, 0, 0]
        let body = chunk + (0..<frames).flatMap { _ in frame }
        return Array("RIFF".utf8) + little(body.count + 4) + [0, 0] + Array("WEBP".utf8) + body
    }
}
