extension AddressRange {
    /// Addresses that no server on the open Internet has: this machine's own, private networks, and what is set aside. Requests
    /// that strangers cause don't go there unless the settings say so (`federation.ip_denylist`, `outgoing.ip_denylist`).
    public static let privateNetworks: [AddressRange] = [
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "224.0.0.0/4", "240.0.0.0/4", "::/128", "::1/128", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64",
        "2001:db8::/32",
        "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
    ].map { text in
        guard let range = AddressRange(text) else { preconditionFailure("\(text) is no block of addresses") }
        return range
    }
}
