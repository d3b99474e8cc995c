"""One-time keys are claimed by many at once while the server is killed again and again, and while the device that owns them repeats
its upload as a client does that got no answer: no key is handed out twice."""

import collections
import json
import pathlib
import sys
import threading
import time
import urllib.error
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))

from roost_server import Roost  # noqa: E402

KEYS = 600
KILLS = 4
CLAIMERS = 6


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def ask(server, path, body, token=None):
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(
        f"{server.url}/_matrix/client/v3/{path}", method="POST", headers=headers, data=json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


class Claimer(threading.Thread):
    def __init__(self, server, user, device, token):
        super().__init__(daemon=True)
        self.server, self.token = server, token
        self.body = {"one_time_keys": {user: {device: "curve25519"}}}
        self.user, self.device = user, device
        self.claimed, self.is_over = [], False

    def run(self):
        while not self.is_over:
            try:
                answer = ask(self.server, "keys/claim", self.body, self.token)
            except (OSError, urllib.error.URLError, ValueError):
                # The server is down, or went down over the answer: then the key is lost, which is allowed.
                time.sleep(0.02)
                continue
            keys = answer["one_time_keys"].get(self.user, {}).get(self.device, {})
            self.claimed += keys
            if not keys:
                time.sleep(0.01)


def main():
    with Roost("--open-registration", environment={"ROOST_RATE_LIMITS_ENABLED": "false"}) as server:
        people = {}
        for name in ("alice", "bob"):
            people[name] = ask(server, "register", {
                "username": name, "password": "secret", "auth": {"type": "m.login.dummy"}})
        alice = people["alice"]
        keys = {"one_time_keys": {f"curve25519:{number:06}": f"public key {number}" for number in range(KEYS)}}
        ask(server, "keys/upload", keys, alice["access_token"])
        claimers = [
            Claimer(server, alice["user_id"], alice["device_id"], people["bob"]["access_token"])
            for _ in range(CLAIMERS)]
        for claimer in claimers:
            claimer.start()
        for kill in range(KILLS):
            wanted = (kill + 1) * KEYS // (KILLS + 2)
            while sum(len(claimer.claimed) for claimer in claimers) < wanted:
                check(all(claimer.is_alive() for claimer in claimers), "somebody stopped claiming")
                time.sleep(0.005)
            server.kill()
            server.start()
            ask(server, "keys/upload", keys, alice["access_token"])
        # Of the algorithm that clients go by it is told, too, that none are left.
        while any(ask(server, "keys/upload", {}, alice["access_token"])["one_time_key_counts"].values()):
            time.sleep(0.02)
        for claimer in claimers:
            claimer.is_over = True
        for claimer in claimers:
            claimer.join(30)
        counts = collections.Counter(key for claimer in claimers for key in claimer.claimed)
        twice = [key for key, count in counts.items() if count > 1]
        check(not twice, f"handed out twice: {twice}")
        # Each kill loses the keys of the answers that were under way, at most one for each who asks.
        check(len(counts) >= KEYS - KILLS * CLAIMERS, f"only {len(counts)} of {KEYS} keys were handed out")
        check(server.stop() == 0, "the server does not stop with status 0")
    print(f"{len(counts)} one-time keys were claimed through {KILLS} kills, none twice")


main()
