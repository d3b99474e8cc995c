/// Certificates for tests, self-signed and valid for a hundred years; their keys are no secret.
public enum TestCertificates {
    public static let first = (
        certificate: """
        -----BEGIN CERTIFICATE-----
        MIIBoDCCAUWgAwIBAgIUErrC1rJhFzOHpn6NoAL2WNcn/pUwCgYIKoZIzj0EAwIw
        FjEUMBIGA1UEAwwLbG9jYWxob3N0LTEwIBcNMjYxMTIzMDkyMDU3WhgPMjEyNjEw
        MzAwOTIwNTdaMBYxFDASBgNVBAMMC2xvY2FsaG9zdC0xMFkwEwYHKoZIzj0CAQYI
        KoZIzj0DAQcDQgAEO9+qAPtB927JkjEYERDQRxfUQQMwrGERehsZ5KnstXXul33n
        AFks9rdMKEugyAStW9YZqQLT7p34CqfvxAfi7qNvMG0wHQYDVR0OBBYEFEygI1DO
        o3T2ve2Z7cu3Zdz3cLkfMB8GA1UdIwQYMBaAFEygI1DOo3T2ve2Z7cu3Zdz3cLkf
        MA8GA1UdEwEB/wQFMAMBAf8wGgYDVR0RBBMwEYIJbG9jYWxob3N0hwR/AAABMAoG
        CCqGSM49BAMCA0kAMEYCIQCBOXjtiS8Z/T2Wj/qV//U2fhuK4dJUri+lz8slGIZR
        zAIhAIvRLjN08J+wqHnaI3SLAuyVpVEv0Z3FcJU7C4g1qPGY
        -----END CERTIFICATE-----
        """,
        key: """
        -----BEGIN PRIVATE KEY-----
        MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgBM2YIwNSpqoWSbR5
        fORqiiXX5CEUzWHzZyuhGwadXoOhRANCAAQ736oA+0H3bsmSMRgRENBHF9RBAzCs
        YRF6Gxnkqey1de6XfecAWSz2t0woS6DIBK1b1hmpAtPunfgKp+/EB+Lu
        -----END PRIVATE KEY-----
        """
    )

    public static let second = (
        certificate: """
        -----BEGIN CERTIFICATE-----
        MIIBnzCCAUWgAwIBAgIUchnES0SpYF/qNE5SEZr+jpTqd64wCgYIKoZIzj0EAwIw
        FjEUMBIGA1UEAwwLbG9jYWxob3N0LTIwIBcNMjYxMTIzMDkyMDU3WhgPMjEyNjEw
        MzAwOTIwNTdaMBYxFDASBgNVBAMMC2xvY2FsaG9zdC0yMFkwEwYHKoZIzj0CAQYI
        KoZIzj0DAQcDQgAE+2hnuoDaYNY1x4r/AYtx5EncLSmYh8KHUsCU8TAVoadBqsrq
        ChNhAxqg9Cup4K8q4+alNJDqQvzweoOzWeDptqNvMG0wHQYDVR0OBBYEFM0pwA96
        bUHKtbFqHWeBdkZsRAMuMB8GA1UdIwQYMBaAFM0pwA96bUHKtbFqHWeBdkZsRAMu
        MA8GA1UdEwEB/wQFMAMBAf8wGgYDVR0RBBMwEYIJbG9jYWxob3N0hwR/AAABMAoG
        CCqGSM49BAMCA0gAMEUCIQDhRe83ZdhVFdUqorFMb92rUfv7jW5LTL7Cn0tldSDg
        cQIgHHgRCCZ1aEiY1MmPMgHdi2EbwssArRodE+lWnjqlK9I=
        -----END CERTIFICATE-----
        """,
        key: """
        -----BEGIN PRIVATE KEY-----
        MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgrHR/SbsqQC1Thp6d
        pW8aFRFpv6lbhgFaFgtGTdRA9zuhRANCAAT7aGe6gNpg1jXHiv8Bi3HkSdwtKZiH
        wodSwJTxMBWhp0GqyuoKE2EDGqD0K6ngryrj5qU0kOpC/PB6g7NZ4Om2
        -----END PRIVATE KEY-----
        """
    )
}
