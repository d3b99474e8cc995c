import CVips
import Synchronization

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// Makes small pictures of large ones with libvips. Blocks; for a pool's threads only.
///
/// The files are strangers'. What is decoded is bounded before any decoder runs: the file's bytes, and the pixels that its
/// header announces. Decoders that libvips itself doesn't trust with hostile files are switched off, and of the others all but
/// four; see `vips.c`.
enum PictureDecoding {
    /// A file in memory is what some of the decoders need.
    static let largestFile = 64 << 20
    /// GIFs are read whole before anything is known of their frames.
    static let largestGIF = 24 << 20
    /// Pixels of a picture, or of all pictures of an animation: four bytes each while it is decoded, some 200 MB at most.
    /// Telephones take photographs of up to 50 million. Where it may be eight bytes, half as many.
    static let mostPixels = 51_000_000
    static let longestSide = 32_768

    enum Failure: Error {
        /// It is no picture that can be decoded.
        case notAPicture
        /// It may be one, but is larger than what is decoded here.
        case tooLarge
        /// There is no libvips on this machine.
        case unavailable
    }

    struct Picture: Sendable {
        let bytes: [UInt8]
        let contentType: String
    }

    /// What a file's header says.
    ///
    /// - Throws: ``Failure``.
    static func header(of path: String, size: Int64) throws -> PictureHeader {
        guard size <= largestFile else { throw Failure.tooLarge }
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw Failure.notAPicture }
        defer { close(descriptor) }
        func read(_ offset: Int, _ count: Int) -> [UInt8] {
            [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
                filled = max(0, pread(descriptor, buffer.baseAddress, count, off_t(offset)))
            }
        }
        // A GIF's header is read to its end, and so its length is looked at before.
        if read(0, 3).elementsEqual("GIF".utf8), size > largestGIF { throw Failure.tooLarge }
        guard let header = PictureHeader(.init(size: Int(size), read: read)) else { throw Failure.notAPicture }
        guard header.width <= longestSide, header.height <= longestSide,
            header.width * header.height <= (header.isHeldWhole ? mostPixels / 2 : mostPixels),
            header.frames <= PictureHeader.mostFrames
        else { throw Failure.tooLarge }
        return header
    }

    private static let isStarted = Mutex(false)

    /// - Parameter size: the box for the picture; nil to keep its size.
    /// - Throws: ``Failure``.
    static func thumbnail(
        of path: String, _ header: PictureHeader, size: ThumbnailSize?, animates: Bool
    ) throws -> Picture {
        let isReady = isStarted.withLock { isStarted in
            if !isStarted { isStarted = cvips_start() == cvips_done }
            return isStarted
        }
        guard isReady else { throw Failure.unavailable }
        let animates = animates && header.isAnimated && header.frames * header.width * header.height <= mostPixels
        var picture = cvips_picture()
        let code = path.withCString { path in
            var request = cvips_request(
                path: path, width: CInt(size?.width ?? longestSide), height: CInt(size?.height ?? longestSide),
                crops: size?.method == .crop ? 1 : 0, animates: animates ? 1 : 0, most_pixels: Int64(mostPixels))
            return cvips_thumbnail(&request, &picture)
        }
        guard code == cvips_done else { throw Failure.notAPicture }
        defer { cvips_free(&picture) }
        let bytes = Array(UnsafeRawBufferPointer(start: picture.bytes, count: picture.size))
        let type =
            switch Int(picture.format) {
            case cvips_png: "image/png"
            case cvips_webp: "image/webp"
            default: "image/jpeg"
            }
        return Picture(bytes: bytes, contentType: type)
    }
}
