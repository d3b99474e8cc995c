extension ThirdSchema {
    static let reading: [String] = []
}
