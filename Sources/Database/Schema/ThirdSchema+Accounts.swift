extension ThirdSchema {
    static let accounts: [String] = []
}
