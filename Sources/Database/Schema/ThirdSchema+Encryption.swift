extension ThirdSchema {
    static let encryption: [String] = []
}
