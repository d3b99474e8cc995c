import Database
import RoostTestSupport
import Testing

@testable import Homeserver

@Suite("Thumbnails", .onEachEngine)
struct ThumbnailTests {
    private struct Thumbnail {
        let bytes: [UInt8]
        let type: String
        let path: String
        let header: PictureHeader
    }

    private func thumbnail(
        _ mediaID: String, _ width: Int64, _ height: Int64, crops: Bool = false, animates: Bool = false,
        _ server: TestServer
    ) async throws -> Thumbnail {
        let file = try await server.homeserver.media.thumbnail(
            .init(server: "localhost", mediaID: mediaID), width: width, height: height, crops: crops, animates: animates
        )
        let bytes = try fileBytes(file.path)
        #expect(Int64(bytes.count) == file.size)
        let header = try #require(PictureHeader(.init(bytes)))
        #expect(file.contentType == header.format.contentType)
        #expect(file.fileName == "thumbnail.\(header.format.rawValue)")
        return Thumbnail(bytes: bytes, type: file.contentType ?? "", path: file.path, header: header)
    }

    @Test("a picture keeps its shape when it is scaled, and gets the asked shape when it is cropped")
    func shapes() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        let picture = try await server.upload(Pictures.png(1_000, 500), by: alice)
        for (width, height, crops, expected) in [
            (320, 240, false, (320, 160)), (1, 1, false, (320, 160)), (321, 10, false, (640, 320)),
            (32, 32, true, (32, 32)), (33, 20, true, (96, 32)), (96, 96, true, (96, 96)), (200, 100, true, (240, 240)),
            // Nothing becomes larger than it was, and what is asked for is not undercut without need.
            (1_600, 1_200, false, (1_000, 500)), (5_000, 5_000, false, (1_000, 500)), (800, 600, true, (800, 500)),
        ] as [(Int64, Int64, Bool, (Int, Int))] {
            let made = try await thumbnail(picture, width, height, crops: crops, server)
            #expect((made.header.width, made.header.height) == expected, "\(width)x\(height) \(crops)")
        }
        await server.close()
    }

    @Test("what is no larger than a thumbnail is answered as it is")
    func small() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        let bytes = Pictures.png(30, 20)
        let picture = try await server.upload(bytes, type: "text/html", by: alice)
        let made = try await thumbnail(picture, 32, 32, crops: true, server)
        #expect(made.bytes == bytes && made.type == "image/png")
        await server.close()
    }

    @Test("opaque pictures become JPEG, transparent ones PNG, moving ones WebP if movement is asked for")
    func formats() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        let opaque = try await server.upload(Pictures.png(400, 300), by: alice)
        #expect(try await thumbnail(opaque, 96, 96, crops: true, server).type == "image/jpeg")
        let transparent = try await server.upload(Pictures.png(400, 300, hasAlpha: true), by: alice)
        #expect(try await thumbnail(transparent, 96, 96, crops: true, server).type == "image/png")
        let moving = try await server.upload(Pictures.gif(400, 300, frames: 3), by: alice)
        let still = try await thumbnail(moving, 320, 240, server)
        #expect(!still.header.isAnimated && still.header.width == 320)
        let animated = try await thumbnail(moving, 320, 240, animates: true, server)
        #expect(animated.header.isAnimated && animated.header.frames == 3 && animated.header.width == 320)
        // What doesn't move is treated as if no movement had been asked for.
        #expect(try await thumbnail(opaque, 320, 240, animates: true, server).type == "image/jpeg")
        // A small one that moves stands still unless it is asked to move.
        let small = try await server.upload(Pictures.gif(20, 10, frames: 2), by: alice)
        #expect(try await thumbnail(small, 320, 240, server).header.isAnimated == false)
        #expect(try await thumbnail(small, 320, 240, animates: true, server).bytes == Pictures.gif(20, 10, frames: 2))
        // Thumbnails of what thumbnails are: JPEG and WebP are read too.
        let jpeg = try await server.upload(try await thumbnail(opaque, 320, 240, server).bytes, by: alice)
        #expect(try await thumbnail(jpeg, 32, 32, crops: true, server).header.format == .jpeg)
        let webp = try await server.upload(animated.bytes, by: alice)
        #expect(try await thumbnail(webp, 32, 32, crops: true, server).header.width == 32)
        await server.close()
    }

    @Test("a thumbnail is made once for a content, and made again if its file is gone")
    func kept() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        let first = try await server.upload(Pictures.png(400, 300), by: alice)
        let second = try await server.upload(Pictures.png(400, 300), by: alice)
        let made = try await thumbnail(first, 96, 96, crops: true, server)
        #expect(try await thumbnail(second, 80, 90, crops: true, server).path == made.path)
        Files.remove(made.path)
        #expect(try await thumbnail(first, 96, 96, crops: true, server).bytes == made.bytes)
        await server.close()
    }

    @Test("many who ask for a thumbnail at the same time get the same one")
    func together() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        let picture = try await server.upload(Pictures.png(500, 500), by: alice)
        let paths = try await withThrowingTaskGroup(of: String.self) { group in
            for _ in 0..<20 {
                group.addTask { try await thumbnail(picture, 96, 96, crops: true, server).path }
            }
            return try await group.reduce(into: Set<String>()) { $0.insert($1) }
        }
        #expect(paths.count == 1)
        await server.close()
    }

    private func code(_ bytes: [UInt8], _ server: TestServer, by user: Requester) async throws -> MatrixError? {
        let picture = try await server.upload(bytes, type: "image/png", by: user)
        do {
            _ = try await thumbnail(picture, 32, 32, crops: true, animates: true, server)
            return nil
        } catch let error as MatrixError { return error }
    }

    @Test("A25: pictures that announce huge sizes or countless frames are refused before they are decoded")
    func huge() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        let end = Pictures.pngChunk("IDAT", [0x78, 0x9C]) + Pictures.pngChunk("IEND", [])
        for bytes in [
            Pictures.pngHead(30_000, 30_000) + end, Pictures.pngHead(0x7FFF_FFFF, 0x7FFF_FFFF) + end,
            Pictures.pngHead(1, 60_000) + end, Pictures.jpegHead(65_535, 65_535),
            Pictures.gif(1, 1, frames: 2, screen: (65_535, 65_535)), Pictures.gif(1, 1, frames: 2_000),
            // Half as large as others may be, because decoders hold them whole.
            Pictures.pngHead(5_100, 5_100, isInterlaced: true) + end,
            Pictures.jpegHead(5_100, 5_100, isProgressive: true),
            Pictures.webpHead(16_777_216, 16_777_216, frames: 2), Pictures.webpHead(1, 1, frames: 2_000),
        ] {
            let error = try await code(bytes, server, by: alice)
            #expect(error?.code == .tooLarge && error?.status == 413, "\(bytes.prefix(40))")
        }
        await server.close()
    }

    @Test("what is not too large, but broken, is refused as that")
    func notTooLarge() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        let end = Pictures.pngChunk("IDAT", [0x78, 0x9C]) + Pictures.pngChunk("IEND", [])
        for bytes in [Pictures.pngHead(5_100, 5_100) + end, Pictures.jpegHead(5_100, 5_100)] {
            #expect(try await code(bytes, server, by: alice)?.status == 400)
        }
        await server.close()
    }

    @Test("A25: an animation of many large frames moves no more, but shows its first frame")
    func manyPixels() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        let moving = try await server.upload(Pictures.gif(64, 64, frames: 900, screen: (300, 300)), by: alice)
        // 81 million pixels in all.
        let made = try await thumbnail(moving, 32, 32, crops: true, animates: true, server)
        #expect(!made.header.isAnimated)
        await server.close()
    }

    @Test("A25: what only pretends to be a picture is none, and no other decoder is tried on it")
    func pretenders() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        let svg = "<svg xmlns='http://www.w3.org/2000/svg' width='10' height='10'><script/></svg>"
        for text in [
            "", "text", svg, "%PDF-1.7\n", "push graphic-context\nviewbox 0 0 1 1\npop graphic-context",
            "II*\0\u{8}\0\0\0",
            "P6\n1 1\n255\nabc", "#?RADIANCE\n", "BM......", "<?xml version='1.0'?>\(svg)",
        ] {
            let error = try await code(Array(text.utf8), server, by: alice)
            #expect(error?.status == 400 && error?.code == .unknown, "\(text)")
        }
        await server.close()
    }

    @Test("A25: a broken picture of any format is refused, and refused again without being decoded again")
    func broken() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        let opaque = try await server.upload(Pictures.png(400, 300), by: alice)
        let moving = try await server.upload(Pictures.gif(400, 300, frames: 2), by: alice)
        let whole = [
            Pictures.png(200, 150), Pictures.gif(200, 150, frames: 2),
            try await thumbnail(opaque, 320, 240, server).bytes,
            try await thumbnail(moving, 320, 240, animates: true, server).bytes,
        ]
        var generator = SeededGenerator(seed: 26)
        var refused = 0
        for picture in whole {
            for part in [2, 3, 5] {
                let cut = Array(picture[..<(picture.count - picture.count / part)])
                let (first, second) = (
                    try await code(cut, server, by: alice), try await code(cut, server, by: alice)
                )
                #expect(first?.status == second?.status)
                if first != nil { refused += 1 }
            }
            for _ in 0..<40 {
                var changed = picture
                for _ in 0..<8 {
                    changed[Int.random(in: 12..<changed.count, using: &generator)] =
                        UInt8.random(in: .min ... .max, using: &generator)
                }
                // Whatever comes of it, it is an answer.
                if let error = try await code(changed, server, by: alice) {
                    refused += 1
                    #expect([400, 413].contains(error.status), "\(error)")
                }
            }
        }
        #expect(refused > 9)
        await server.close()
    }

    @Test("sizes that make no sense are refused")
    func sizes() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        let picture = try await server.upload(Pictures.png(40, 30), by: alice)
        for (width, height) in [(0, 1), (1, 0), (-5, 5), (Int64.max, 1), (1, Int64.min)] as [(Int64, Int64)] {
            let error = await #expect(throws: MatrixError.self) {
                try await thumbnail(picture, width, height, server)
            }
            #expect(error?.code == .invalidParam)
        }
        await server.close()
    }
}
