"""Runs a Roost server of its own for a test, on a free port and in a temporary directory."""

import os
import subprocess

from server_process import ServerProcess, free_port


class Roost(ServerProcess):
    def __init__(self, *flags, environment=None):
        super().__init__("roost-test-")
        self.binary = os.environ["ROOST_BINARY"]
        self.flags = flags
        self.environment = environment or {}
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def arguments(self):
        return ["--listen", f"127.0.0.1:{self.port}", *self.flags]

    def launch(self):
        with open(self.directory / "log", "ab") as log:
            return subprocess.Popen(
                [self.binary, "serve", "--data", str(self.directory / "data"), *self.arguments()],
                stdout=log, stderr=log, env={**os.environ, **self.environment})
