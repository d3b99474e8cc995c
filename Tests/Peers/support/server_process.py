"""A server that runs as a process of a test, with a directory of its own."""

import pathlib
import shutil
import signal
import socket
import tempfile
import time
import urllib.request


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class ServerProcess:
    """Can be stopped, killed and started again on the same data. Subclasses set `url` and tell how to `launch` it."""

    # Seconds for an orderly end.
    ending = 15

    def __init__(self, prefix):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix=prefix))
        self.process = None

    def launch(self):
        """Starts the process and answers it."""
        raise NotImplementedError

    def start(self, seconds=90):
        self.process = self.launch()
        end = time.monotonic() + seconds
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
        return self.process.wait(self.ending)

    def whole_log(self):
        path = self.directory / "log"
        return path.read_text(errors="replace") if path.exists() else ""

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
