"""A server under write load is ended at random moments, many times: by SIGKILL, and by power cuts that take every write
with them which was not synced. After each, every acknowledged event is there, in order and once; positions never appear late (a
reader that went on from its last sync token has seen everything exactly once); and the database contradicts itself nowhere."""

import http.client
import json
import os
import pathlib
import random
import subprocess
import sys
import threading
import time
import urllib.parse

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))

from postgres_database import PostgresDatabase  # noqa: E402
from roost_server import Roost  # noqa: E402

API = "/_matrix/client/v3"


class Client:
    def __init__(self, server):
        self.server, self.connection = server, None
        self.token = None

    def ask(self, method, path, body=None):
        if self.connection is None:
            self.connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=20)
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        try:
            self.connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = self.connection.getresponse()
            data = json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError):
            self.connection.close()
            self.connection = None
            raise ConnectionError("the server is gone") from None
        if answer.status != 200:
            raise RuntimeError(f"{method} {path}: {answer.status} {data}")
        return data

    def register(self, name):
        self.token = self.ask("POST", f"{API}/register", {
            "username": name, "password": "p", "auth": {"type": "m.login.dummy"}})["access_token"]


class Writer(Client):
    """Writes into its room until the server is gone. What it got an answer for is acknowledged; what it got none for is sent
    again with the same transaction ID when the server is back."""

    def __init__(self, server, name):
        super().__init__(server)
        self.register(name)
        self.room = self.ask("POST", f"{API}/createRoom", {"room_version": random.choice(["10", "11", "12"])})["room_id"]
        self.acknowledged, self.next = [], 0

    def write(self):
        try:
            while True:
                if self.next % 10 == 7:
                    path = f"{API}/rooms/{self.room}/state/m.test/{self.next % 3}"
                else:
                    path = f"{API}/rooms/{self.room}/send/m.room.message/{self.next}"
                event = self.ask("PUT", path, {"body": f"{self.next}"})["event_id"]
                self.acknowledged.append((self.next, event))
                self.next += 1
        except ConnectionError:
            pass


class Reader(Client):
    """Follows one room by sync, across all restarts."""

    def __init__(self, server, writer):
        super().__init__(server)
        self.token, self.room, self.since, self.seen = writer.token, writer.room, None, []

    def follow(self, timeout=0):
        filter_ = json.dumps({"room": {"timeline": {"limit": 1000}, "rooms": [self.room]}})
        query = f"timeout={timeout}&filter={urllib.parse.quote(filter_)}"
        if self.since:
            query += f"&since={self.since}"
        answer = self.ask("GET", f"{API}/sync?{query}")
        room = answer.get("rooms", {}).get("join", {}).get(self.room)
        if room:
            if self.since and room["timeline"]["limited"]:
                raise RuntimeError("a gap where there should be none")
            self.seen += [(event["content"].get("body"), event["event_id"]) for event in room["timeline"]["events"]
                          if event["type"] in ("m.room.message", "m.test")]
        self.since = answer["next_batch"]

    def go_on(self):
        try:
            while True:
                self.follow(timeout=1000)
        except ConnectionError:
            pass


def check(server, writers, reader):
    reader.follow()
    for writer in writers:
        # The one that was under way, as its client would send it again.
        if writer.next % 10 != 7:
            path = f"{API}/rooms/{writer.room}/send/m.room.message/{writer.next}"
            event = writer.ask("PUT", path, {"body": f"{writer.next}"})["event_id"]
            writer.acknowledged.append((writer.next, event))
            writer.next += 1
    reader.follow()
    for writer in writers:
        stored, start = [], None
        known = {event for _, event in writer.acknowledged}
        wanted = writer.acknowledged[-150:]
        while not set(event for _, event in wanted) <= set(stored):
            page = writer.ask("GET", f"{API}/rooms/{writer.room}/messages?dir=b&limit=100" + (f"&from={start}" if start else ""))
            stored += [event["event_id"] for event in page["chunk"]]
            if "end" not in page:
                break
            start = page["end"]
        mine = [event for event in reversed(stored) if event in known]
        tail = [event for _, event in wanted]
        if mine[-len(tail):] != tail:
            raise RuntimeError("an acknowledged event is lost, doubled or out of order")
    seen = [event for _, event in reader.seen]
    if len(seen) != len(set(seen)):
        raise RuntimeError("sync showed an event twice")
    followed = next(writer for writer in writers if writer.room == reader.room)
    shown = set(seen)
    for _, event in followed.acknowledged:
        if event not in shown:
            raise RuntimeError("sync never showed an acknowledged event")


def consistent(server):
    done = subprocess.run(
        [server.binary, "db", "check", "--data", str(server.directory / "data")], capture_output=True, text=True,
        env={**os.environ, **server.environment})
    if done.returncode != 0:
        raise RuntimeError(f"the database contradicts itself:\n{done.stdout}{done.stderr}")


def rounds(server, count, end, seed):
    random.seed(seed)
    print(f"  seed {seed}", flush=True)
    writers = [Writer(server, f"writer{number}") for number in range(4)]
    reader = Reader(server, writers[0])
    reader.follow()
    for number in range(count):
        threads = [threading.Thread(target=writer.write) for writer in writers] + [threading.Thread(target=reader.go_on)]
        for thread in threads:
            thread.start()
        time.sleep(random.uniform(0.02, 0.25))
        end()
        for thread in threads:
            thread.join()
        server.start()
        check(server, writers, reader)
        if number % 10 == 9 or number == count - 1:
            consistent(server)
    total = sum(len(writer.acknowledged) for writer in writers)
    print(f"  {count} times, {total} acknowledged events: none lost, none twice", flush=True)


def faults(server, fault):
    """While the disk takes nothing, writes are refused with a clear error and reads go on; afterwards all goes on without a
    restart."""
    writer = Writer(server, "persistent")

    def write(number):
        try:
            path = f"{API}/rooms/{writer.room}/send/m.room.message/{number}"
            event = writer.ask("PUT", path, {"body": f"{number}"})["event_id"]
            writer.acknowledged.append((number, event))
            return None
        except RuntimeError as error:
            return str(error)

    for number in range(5):
        if write(number):
            raise RuntimeError("a write failed on a healthy disk")
    for kind, name in (("F", "full disk"), ("R", "read-only file system")):
        fault.write_text(kind)
        refused = [write(f"{kind}{number}") for number in range(3)]
        if not all(answer and " 500 " in answer and "M_UNKNOWN" in answer for answer in refused):
            raise RuntimeError(f"{name}: writes were not refused clearly: {refused}")
        page = writer.ask("GET", f"{API}/rooms/{writer.room}/messages?dir=b&limit=3")
        if page["chunk"][0]["event_id"] != writer.acknowledged[-1][1]:
            raise RuntimeError(f"{name}: reading does not go on")
        fault.unlink()
        # What was refused is sent again by the client, and is stored once.
        for number in range(3):
            if failure := write(f"{kind}{number}"):
                raise RuntimeError(f"{name}: no recovery without a restart: {failure}")
    page = writer.ask("GET", f"{API}/rooms/{writer.room}/messages?dir=b&limit={len(writer.acknowledged)}")
    if [event["event_id"] for event in reversed(page["chunk"])] != [event for _, event in writer.acknowledged]:
        raise RuntimeError("what was written around the faults is not there, or not in order")
    consistent(server)
    print("  full disk, read-only file system: refused clearly, recovered without a restart", flush=True)


def main():
    count, seed = int(sys.argv[1]), int(os.environ.get("SEED", random.randrange(1 << 32)))
    flags = ("--open-registration", "--no-rate-limits")
    with Roost(*flags) as server:
        print("SIGKILL", flush=True)
        rounds(server, count, server.kill, seed)
    if "ROOST_TEST_POSTGRES" in os.environ:
        with PostgresDatabase() as database, Roost(*flags, environment={"ROOST_DATABASE_URL": database.url}) as server:
            print("SIGKILL, on PostgreSQL", flush=True)
            rounds(server, count, server.kill, seed + 2)
    with Roost(*flags) as server:
        server.stop()
        trigger = server.directory / "cut"
        server.environment = {
            "LD_PRELOAD": os.environ["POWERLOSS"], "POWERLOSS_DIR": str(server.directory / "data" / "roost.db"),
            "POWERLOSS_TRIGGER": str(trigger), "POWERLOSS_FAULT": str(server.directory / "fault")}
        server.start()

        def cut_power():
            trigger.touch()
            if server.process.wait(20) != 99:
                raise RuntimeError("the power cut did not happen")
            trigger.unlink()

        print("faults", flush=True)
        faults(server, server.directory / "fault")
        print("power cuts", flush=True)
        rounds(server, count, cut_power, seed + 1)
        lost = server.whole_log().count("writes lost") - server.whole_log().count(" 0 writes lost")
        print(f"  {lost} of {count} cuts took unsynced writes with them", flush=True)
        if lost == 0:
            raise RuntimeError("no cut took anything: the test does not test")


main()
