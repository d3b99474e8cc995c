import Foundation
import FuzzTargets
import Testing

/// The committed corpus, and a fixed number of mutations of it.
@Suite("Fuzzing") struct FuzzTests {
    static let corpus = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .appendingPathComponent("../../../Fuzz/Corpus").standardizedFileURL

    @Test("nothing traps and all that has to hold does", arguments: FuzzTarget.allCases)
    func run(target: FuzzTarget) throws {
        let folder = Self.corpus.appendingPathComponent(target.rawValue)
        let names = try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted()
        let inputs = try names.map { try Array(Data(contentsOf: folder.appendingPathComponent($0))) }
        #expect(!inputs.isEmpty)
        for input in inputs { target.run(input) }
        var mutator = Mutator(seed: 0x5EED)
        for number in 0..<20_000 {
            let input = inputs[number % inputs.count]
            target.run(mutator.mutate(input, with: inputs[(number / 7) % inputs.count]))
        }
    }
}
