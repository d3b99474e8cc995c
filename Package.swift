// swift-tools-version: 6.1
import PackageDescription

// Imports point one way: MatrixCore ← Database ← Homeserver ← HomeserverHTTP ← roost.
// A target of its own for each layer lets the compiler keep the walls up.
let package = Package(
    name: "roost",
    platforms: [.macOS(.v15)],
    products: [
        .executable(name: "roost", targets: ["roost"])
    ],
    dependencies: [
        // Exact versions: Package.resolved is not committed.
        .package(url: "https://github.com/apple/swift-argument-parser", exact: "1.8.2"),
        .package(url: "https://github.com/apple/swift-collections", exact: "1.6.0"),
        .package(url: "https://github.com/apple/swift-crypto", exact: "4.5.2"),
        .package(url: "https://github.com/apple/swift-log", exact: "1.16.2"),
        .package(url: "https://github.com/apple/swift-nio", exact: "2.101.2"),
        .package(url: "https://github.com/apple/swift-nio-http2", exact: "1.46.0"),
        .package(url: "https://github.com/apple/swift-nio-ssl", exact: "2.37.6"),
    ],
    targets: [
        .systemLibrary(name: "CSQLite", pkgConfig: "sqlite3", providers: [.apt(["libsqlite3-dev"])]),
        .systemLibrary(name: "CPostgreSQL", pkgConfig: "libpq", providers: [.apt(["libpq-dev"])]),
        .systemLibrary(name: "CArgon2", pkgConfig: "libargon2", providers: [.apt(["libargon2-dev"])]),
        .systemLibrary(name: "CYAML", pkgConfig: "yaml-0.1", providers: [.apt(["libyaml-dev"])]),
        // Pictures. libvips is loaded when the first one comes, see vips.c.
        .target(name: "CVips"),
        // A commit's pages in one system call.
        .target(name: "CSQLiteLog"),
        // Service records, which getaddrinfo doesn't know.
        .target(name: "CResolver", linkerSettings: [.linkedLibrary("resolv")]),
        // Password hashes of other servers.
        .systemLibrary(name: "CCrypt", pkgConfig: "libcrypt", providers: [.apt(["libcrypt-dev"])]),
        .target(
            name: "MatrixCore",
            dependencies: [.product(name: "Crypto", package: "swift-crypto")]
        ),
        .target(
            name: "Database",
            dependencies: [
                "MatrixCore", "CSQLite", "CSQLiteLog", "CPostgreSQL",
                .product(name: "Logging", package: "swift-log"),
            ]
        ),
        .target(
            name: "Homeserver",
            dependencies: [
                "MatrixCore", "Database", "CArgon2", "CCrypt", "CVips",
                .product(name: "Crypto", package: "swift-crypto"),
                .product(name: "HeapModule", package: "swift-collections"),
                .product(name: "Logging", package: "swift-log"),
            ]
        ),
        .target(
            name: "HomeserverHTTP",
            dependencies: [
                "MatrixCore", "Database", "Homeserver", "CResolver",
                .product(name: "Logging", package: "swift-log"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "NIOTLS", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOHTTP2", package: "swift-nio-http2"),
                .product(name: "NIOSSL", package: "swift-nio-ssl"),
            ]
        ),
        .executableTarget(
            name: "roost",
            dependencies: [
                "Database", "Homeserver", "HomeserverHTTP", "CYAML",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
            ]
        ),
        .executableTarget(
            name: "roost-bench",
            dependencies: [
                "MatrixCore", "Database", "Homeserver", "RoostTestSupport", "CSQLite",
                .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"), .product(name: "NIOSSL", package: "swift-nio-ssl"),
            ],
            path: "Benchmarks", exclude: ["instructions.tsv"]),
        .target(name: "FuzzTargets", dependencies: ["MatrixCore"], path: "Fuzz/Targets"),
        .testTarget(
            name: "MatrixCoreTests", dependencies: ["MatrixCore", "FuzzTargets"], resources: [.copy("Vectors")]),
        // What only tests need of the product: a server in a temporary directory, a clock that is set by hand.
        .target(
            name: "RoostTestSupport",
            dependencies: [
                "MatrixCore", "Database", "Homeserver", "HomeserverHTTP",
                .product(name: "Logging", package: "swift-log"), .product(name: "NIOPosix", package: "swift-nio"),
            ]
        ),
        .testTarget(name: "FederationTests", dependencies: ["HomeserverHTTP", "RoostTestSupport"]),
        .testTarget(
            name: "DatabaseTests", dependencies: ["Database", "RoostTestSupport"], exclude: ["Fixtures"]),
        .testTarget(name: "HomeserverTests", dependencies: ["Homeserver", "RoostTestSupport"]),
        .testTarget(
            name: "HomeserverHTTPTests",
            dependencies: [
                "HomeserverHTTP", "RoostTestSupport",
                .product(name: "Logging", package: "swift-log"),
                .product(name: "NIOEmbedded", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOHTTP2", package: "swift-nio-http2"),
                .product(name: "NIOSSL", package: "swift-nio-ssl"),
            ],
            exclude: ["Conformance/Facts"]
        ),
        .testTarget(name: "RoostTests", dependencies: ["roost", "RoostTestSupport"]),
    ],
    swiftLanguageModes: [.v6]
)

// libFuzzer brings its own `main`, so its driver only links with `--sanitize=fuzzer`: see scripts/fuzz.
if Context.environment["ROOST_FUZZ"] != nil {
    package.targets.append(.executableTarget(name: "roost-fuzz", dependencies: ["FuzzTargets"], path: "Fuzz/Driver"))
}

// Asynchronous functions run where their caller runs: without it, each call and each return asks where to go on.
let runInPlace = [
    "MatrixCore", "Database", "Homeserver", "HomeserverHTTP", "roost", "RoostTestSupport", "FederationTests",
]
for target in package.targets where runInPlace.contains(target.name) {
    target.swiftSettings = [.enableUpcomingFeature("NonisolatedNonsendingByDefault")]
}
