import Homeserver
import NIOEmbedded
import Testing

@testable import HomeserverHTTP

@Suite struct ConnectionRegistryTests {
    @Test("A16: one address can't take all connections, and closed ones make room")
    func perAddress() throws {
        var limits = ServerLimits()
        limits.connections = 5
        limits.connectionsPerAddress = 2
        let registry = ConnectionRegistry()
        let stranger = IPAddress("192.0.2.1")
        let first = EmbeddedChannel()
        var others: [EmbeddedChannel] = []
        func add(_ address: IPAddress?) -> Bool {
            others.append(EmbeddedChannel())
            return registry.add(others[others.count - 1], from: address, within: limits)
        }
        #expect(registry.add(first, from: stranger, within: limits))
        #expect(add(stranger))
        #expect(!add(stranger))
        #expect(add(IPAddress("192.0.2.2")))
        #expect(add(nil))
        _ = try first.finish()
        #expect(add(stranger))
        #expect(!add(stranger))
        #expect(add(nil))
        #expect(!add(nil), "all places are taken")
    }
}
