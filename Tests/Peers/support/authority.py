"""A certificate authority of a test's own, and certificates for servers on loopback."""

import pathlib
import subprocess


class Authority:
    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.certificate = self.directory / "authority.pem"
        self.key = self.directory / "authority.key"
        self.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                     "-keyout", self.key, "-out", self.certificate, "-days", "30", "-subj", "/CN=Authority of a test")

    @staticmethod
    def openssl(*arguments):
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)

    def issue(self, name, alternatives="DNS:localhost,IP:127.0.0.1"):
        """A certificate and its key, as paths."""
        certificate, key = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        request, extensions = self.directory / f"{name}.csr", self.directory / f"{name}.ext"
        extensions.write_text(f"subjectAltName={alternatives}\n")
        self.openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key,
                     "-out", request, "-subj", f"/CN={name}")
        self.openssl("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self.key, "-CAcreateserial",
                     "-out", certificate, "-days", "30", "-extfile", extensions)
        return certificate, key
