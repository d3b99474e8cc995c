import FuzzTargets
import Glibc

/// The entry point that libFuzzer calls; `ROOST_FUZZ` names the target.
private let target: FuzzTarget = {
    guard let name = getenv("ROOST_FUZZ"), let target = FuzzTarget(rawValue: String(cString: name)) else {
        fatalError("ROOST_FUZZ is none of \(FuzzTarget.allCases.map(\.rawValue))")
    }
    return target
}()

@_cdecl("LLVMFuzzerTestOneInput")
public func testOneInput(_ data: UnsafePointer<UInt8>, _ size: Int) -> CInt {
    target.run(Array(UnsafeBufferPointer(start: data, count: size)))
    return 0
}
