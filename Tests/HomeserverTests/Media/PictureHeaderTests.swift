import RoostTestSupport
import Testing

@testable import Homeserver

@Suite("What the beginning of a picture says")
struct PictureHeaderTests {
    private func header(_ bytes: [UInt8]) -> PictureHeader? { PictureHeader(.init(bytes)) }

    @Test("size and movement are read from each format")
    func formats() throws {
        let png = try #require(header(Pictures.png(300, 200)))
        #expect(png.format == .png && (png.width, png.height) == (300, 200) && !png.isAnimated)
        let control = Pictures.pngChunk("acTL", [0, 0, 0, 2, 0, 0, 0, 0])
        #expect(try #require(header(Pictures.png(3, 2, chunks: control))).isAnimated)
        let gif = try #require(header(Pictures.gif(30, 20, frames: 3)))
        #expect(gif.format == .gif && (gif.width, gif.height) == (30, 20) && gif.frames == 3 && gif.isAnimated)
        #expect(try #require(header(Pictures.gif(30, 20, frames: 1))).isAnimated == false)
        let jpeg = try #require(header(Pictures.jpegHead(4_000, 3_000)))
        #expect(jpeg.format == .jpeg && (jpeg.width, jpeg.height) == (4_000, 3_000))
        let webp = try #require(header(Pictures.webpHead(700, 500, frames: 4)))
        #expect(webp.format == .webp && (webp.width, webp.height) == (700, 500) && webp.frames == 4)
        let still = try #require(header(Pictures.webpHead(7, 5) + [0, 0, 0, 0]))
        #expect(still.frames == 1 && !still.isAnimated)
    }

    @Test("A25: a frame that is larger than the announced screen counts with its size")
    func largeFrame() throws {
        let gif = try #require(header(Pictures.gif(40, 30, frames: 2, screen: (1, 1))))
        #expect((gif.width, gif.height) == (40, 30))
    }

    @Test("A25: of an animation of countless frames, no more are counted than are allowed")
    func countless() throws {
        #expect(try #require(header(Pictures.gif(1, 1, frames: 5_000))).frames == PictureHeader.mostFrames + 1)
        #expect(try #require(header(Pictures.webpHead(1, 1, frames: 5_000))).frames == PictureHeader.mostFrames + 1)
    }

    @Test("what is no picture of a known kind is none, whatever it is called")
    func others() {
        for text in [
            "", "<svg xmlns='http://www.w3.org/2000/svg'/>", "%PDF-1.7", "II*\0", "GIF", "RIFF", "P6 1 1 255 ",
        ] {
            #expect(header(Array(text.utf8)) == nil)
        }
        #expect(header(Pictures.pngHead(0, 5) + Pictures.pngChunk("IDAT", [])) == nil)
        #expect(header(Pictures.pngHead(5, 5)) == nil)
        #expect(header(Pictures.gif(5, 5, frames: 0)) == nil)
    }

    @Test("A25: cut off or changed anywhere, a header is read to an end, and sizes stay sizes")
    func broken() {
        var generator = SeededGenerator(seed: 25)
        let whole = [
            Pictures.png(9, 7), Pictures.gif(9, 7, frames: 3), Pictures.jpegHead(9, 7),
            Pictures.webpHead(9, 7, frames: 3),
        ]
        var found = 0
        for picture in whole {
            for end in 0..<min(picture.count, 600) where header(Array(picture[..<end])) != nil { found += 1 }
            for _ in 0..<3_000 {
                var changed = picture
                for _ in 0..<Int.random(in: 1...4, using: &generator) {
                    changed[Int.random(in: 0..<min(64, changed.count), using: &generator)] =
                        UInt8.random(in: .min ... .max, using: &generator)
                }
                guard let header = header(changed) else { continue }
                found += 1
                #expect(header.width > 0 && header.height > 0 && header.frames <= PictureHeader.mostFrames + 1)
            }
        }
        #expect(found > 1_000)
    }
}
