/// The sizes of thumbnails (Client-Server API, "Thumbnails").
///
/// What is made is one of few sizes, so that a picture has no more than so many thumbnails whatever is asked for: the next
/// that is not smaller than what was asked for, of the specification's sizes or in their row.
struct ThumbnailSize: Hashable, Sendable {
    enum Method: String, Sendable {
        case crop, scale
    }

    let width: Int
    let height: Int
    let method: Method

    /// Boxes for pictures that keep their shape.
    private static let boxes = [(320, 240), (640, 480), (800, 600), (1_600, 1_200)]
    /// Sides of pictures that are cut to a shape.
    private static let sides = [32, 96, 240, 320, 480, 600, 640, 800]

    /// nil if no thumbnail is as large as is asked for: the content itself is then the only answer that is not smaller.
    init?(atLeast width: Int, _ height: Int, _ method: Method) {
        switch method {
        case .scale:
            guard let box = Self.boxes.first(where: { $0.0 >= width && $0.1 >= height }) else { return nil }
            (self.width, self.height) = box
        case .crop:
            guard let width = Self.sides.first(where: { $0 >= width }),
                let height = Self.sides.first(where: { $0 >= height })
            else { return nil }
            (self.width, self.height) = (width, height)
        }
        self.method = method
    }

    /// Whether a picture is so small that there is nothing to make smaller.
    func holds(_ picture: PictureHeader) -> Bool { picture.width <= width && picture.height <= height }
}
