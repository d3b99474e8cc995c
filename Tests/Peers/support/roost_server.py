"""Runs a Roost server of its own for a test, on a free port and in a temporary directory."""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request


class Roost:
    """A server process that can be killed and started again on the same data."""

    def __init__(self, *flags, environment=None):
        self.binary = os.environ["ROOST_BINARY"]
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="roost-test-"))
        self.flags = flags
        self.environment = environment or {}
        self.process = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self):
        with open(self.directory / "log", "ab") as log:
            self.process = subprocess.Popen(
                [self.binary, "serve", "--data", str(self.directory / "data"),
                 "--listen", f"127.0.0.1:{self.port}", *self.flags],
                stdout=log, stderr=log, env={**os.environ, **self.environment})
        end = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(self.url + "/health", timeout=5) as answer:
                    if answer.status == 200:
                        return
            except OSError:
                pass
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with {self.process.returncode}:\n{self.log()}")
            if time.monotonic() > end:
                raise RuntimeError(f"the server does not answer:\n{self.log()}")
            time.sleep(0.05)

    def kill(self):
        """SIGKILL: nothing is finished, nothing is flushed."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        """SIGTERM; returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(15)

    def whole_log(self):
        return (self.directory / "log").read_text(errors="replace")

    def log(self):
        return self.whole_log()[-4000:]

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, kind, error, trace):
        if kind is not None:
            print(self.log())
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)
