import Homeserver
import Testing

@Suite struct IPAddressTests {
    @Test(
        "addresses are read in all their spellings and written in one",
        arguments: [
            ("192.0.2.1", "192.0.2.1"), ("::ffff:192.0.2.1", "192.0.2.1"), ("::FFFF:C000:201", "192.0.2.1"),
            ("2001:DB8:0:0:0:0:0:1", "2001:db8::1"), ("::", "::"), ("::1", "::1"), ("1::", "1::"),
            ("2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"), ("2001:0:0:1:0:0:0:1", "2001:0:0:1::1"),
            ("64:ff9b::1.2.3.4", "64:ff9b::102:304"), ("fe80:0:0:0:1::", "fe80::1:0:0:0"),
        ])
    func spellings(_ text: String, _ canonical: String) {
        #expect(IPAddress(text)?.description == canonical)
    }

    @Test(
        "what isn't an address is refused",
        arguments: [
            "", "1", "1.2.3", "1.2.3.4.5", "1.2.3.256", "01.2.3.4", "1.2.3.4 ", "0x1.2.3.4", "1.2.3.-4", ":", ":::",
            "1:2",
            "1:2:3:4:5:6:7:8:9", "1::2::3", "12345::", "g::", "::1%eth0", "1:2:3:4:5:6:7:", ":1:2:3:4:5:6:7",
            "1.2.3.4::",
            "::1.2.3", "1:2:3:4:5:6:7::8", "[::1]", "+1::", "é::",
        ])
    func malformed(_ text: String) {
        #expect(IPAddress(text) == nil)
    }

    @Test(
        "a block contains what shares its prefix",
        arguments: [
            ("10.0.0.0/8", "10.255.0.1", true), ("10.0.0.0/8", "11.0.0.1", false), ("0.0.0.0/0", "8.8.8.8", true),
            ("0.0.0.0/0", "::1", false), ("10.0.0.0/8", "::ffff:10.1.1.1", true), ("::/0", "1.2.3.4", true),
            ("fd00::/8", "fdff::1", true), ("fd00::/8", "fc00::1", false),
            ("2001:db8::/65", "2001:db8::8000:0:0:0", false),
            ("2001:db8::/65", "2001:db8::7fff:0:0:0", true), ("192.0.2.7", "192.0.2.7", true), ("::1", "::2", false),
        ])
    func blocks(_ block: String, _ address: String, _ isInside: Bool) throws {
        let range = try #require(AddressRange(block))
        #expect(range.contains(try #require(IPAddress(address))) == isInside)
    }

    @Test(
        "what isn't a block is refused", arguments: ["10.0.0.0/33", "::/129", "10.0.0.0/", "/8", "10.0.0.0/+8", "a/8"])
    func malformedBlocks(_ text: String) {
        #expect(AddressRange(text) == nil)
    }

    @Test(
        "this machine's own addresses",
        arguments: [
            ("127.0.0.1", true), ("127.9.9.9", true), ("::1", true), ("::ffff:127.0.0.1", true), ("128.0.0.1", false),
            ("::2", false),
        ])
    func loopback(_ text: String, _ isLoopback: Bool) throws {
        #expect(try #require(IPAddress(text)).isLoopback == isLoopback)
    }
}
