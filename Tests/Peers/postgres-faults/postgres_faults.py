"""A node whose database server goes away and comes back: clear errors meanwhile, nothing acknowledged is lost, nothing is written
twice, and it goes on without a restart. On a cluster of its own, since it is stopped and killed."""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))

from postgres_database import Client, Failed, messages, sql  # noqa: E402
from roost_server import Roost  # noqa: E402


def check(condition, what):
    if not condition:
        raise AssertionError(what)


class Cluster:
    def __init__(self):
        self.bin = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"))[-1]
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="roost-faults-"))
        self.directory.chmod(0o755)
        self.home = self.directory / "postgres"
        self.home.mkdir()
        self.user = {}
        # PostgreSQL refuses to run as root.
        if os.getuid() == 0:
            shutil.chown(self.home, "postgres", "postgres")
            self.user = {"user": "postgres", "group": "postgres", "extra_groups": []}
        subprocess.run([self.bin / "initdb", "--auth=trust", "--username=roost", "--encoding=UTF8", "--locale=C",
                        "--no-sync", "--pgdata=data"], cwd=self.home, check=True, stdout=subprocess.DEVNULL, **self.user)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"postgresql://roost@127.0.0.1:{self.port}/postgres"
        self.process = None

    def start(self):
        with open(self.directory / "log", "ab") as log:
            self.process = subprocess.Popen(
                [self.bin / "postgres", "-D", "data", "-k", str(self.home), "-c", "listen_addresses=127.0.0.1",
                 "-c", f"port={self.port}"], cwd=self.home, stdout=log, stderr=log, stdin=subprocess.DEVNULL, **self.user)
        for _ in range(300):
            try:
                sql(self.url, "SELECT 1")
                return
            except RuntimeError:
                time.sleep(0.1)
        raise RuntimeError((self.directory / "log").read_text())

    def stop(self, how=signal.SIGINT):
        self.process.send_signal(how)
        self.process.wait(30)

    def close(self):
        if self.process and self.process.poll() is None:
            self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


class Writer(threading.Thread):
    """Says one thing after another, each until it is acknowledged."""

    def __init__(self, client, room):
        super().__init__(daemon=True)
        self.client, self.room = client, room
        self.acknowledged, self.failures, self.is_over = [], [], False
        self.slowest = 0.0

    def run(self):
        number = 0
        while not self.is_over:
            started = time.monotonic()
            try:
                self.client.say(self.room, str(number), f"t{number}")
                self.acknowledged.append(str(number))
                number += 1
            except Failed as failure:
                self.failures.append(failure)
                time.sleep(0.05)
            self.slowest = max(self.slowest, time.monotonic() - started)


def goes_on(writer, within=20):
    """Waits until something new is acknowledged, and answers how long that took."""
    before, started = len(writer.acknowledged), time.monotonic()
    while len(writer.acknowledged) <= before + 3:
        check(time.monotonic() - started < within, "the node goes on without a restart")
        time.sleep(0.02)
    return time.monotonic() - started


def main():
    cluster = Cluster()
    try:
        cluster.start()
        os.environ.update({
            "ROOST_DATABASE_URL": cluster.url, "ROOST_REGISTRATION_MODE": "open", "ROOST_RATE_LIMITS_ENABLED": "false"})
        with Roost() as server:
            alice = Client(server.url).register("alice")
            room = alice.create_room()
            since = alice.sync()["next_batch"]
            writer = Writer(alice.at(server.url), room)
            writer.start()
            goes_on(writer)
            for name, fault in [
                ("stopped for a minute", lambda: (cluster.stop(), time.sleep(60), cluster.start())),
                ("killed", lambda: (cluster.stop(signal.SIGQUIT), time.sleep(1), cluster.start())),
                ("connections cut", lambda: sql(
                    cluster.url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'roost'")),
            ]:
                failed = len(writer.failures)
                fault()
                took = goes_on(writer)
                print(f"{name}: {len(writer.failures) - failed} clear errors, goes on after {took:.2f} s")
            for failure in writer.failures:
                check(failure.status >= 500 and "errcode" in failure.body, f"the error is clear: {failure}")
            writer.is_over = True
            writer.join(60)
            found = [body for _, body in alice.history(room)]
            check(found == sorted(found, key=int), "in order")
            check(len(found) == len(set(found)), "nothing comes twice")
            check(set(writer.acknowledged) <= set(found), "nothing acknowledged is lost")
            check(len(messages(alice.sync(since), room)) > 0, "sync goes on from its token")
            check(server.process.poll() is None, "the node was never restarted")
            print(f"{len(found)} messages are there once; the slowest answer took {writer.slowest:.1f} s")
    finally:
        cluster.close()


main()
