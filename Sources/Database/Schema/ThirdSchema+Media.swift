extension ThirdSchema {
    static let media: [String] = []
}
