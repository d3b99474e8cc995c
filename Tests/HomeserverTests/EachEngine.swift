import RoostTestSupport
import Testing

/// Has each test of a suite run on both engines, one after the other.
struct EachEngine: SuiteTrait, TestTrait, TestScoping {
    var isRecursive: Bool { true }

    func provideScope(
        for test: Test, testCase: Test.Case?, performing function: @Sendable () async throws -> Void
    ) async throws {
        try await EngineKind.onEach(function)
    }
}

extension Trait where Self == EachEngine {
    static var onEachEngine: Self { EachEngine() }
}
