"""Two nodes on one PostgreSQL database: a client on each talks to the other, what one node is told holds on the other at once,
both write into one room, and one is killed under load."""

import concurrent.futures
import os
import pathlib
import statistics
import sys
import tempfile
import threading
import time
import urllib.parse

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))

from authority import Authority  # noqa: E402
from federating import FederatingRoost  # noqa: E402
from postgres_database import Client, Failed, PostgresDatabase, messages  # noqa: E402
from roost_server import Roost  # noqa: E402


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def refused(status, do):
    try:
        do()
    except Failed as failure:
        return failure.status == status
    return False


def talk(one, other):
    """A client on each node; how long from the send's answer to the other node's waiting sync."""
    alice = Client(one.url).register("alice")
    bob = Client(other.url).register("bob")
    room = alice.create_room()
    bob.join(room)
    # A token of one node holds on the other, however early it comes.
    for _ in range(20):
        alice.say(room, "hello")
        token = alice.sync()["next_batch"]
        check(messages(bob.at(other.url).sync(token), room) == [], "a token of the other node begins anew")
    delays = []
    since = bob.sync()["next_batch"]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        for number in range(40):
            def wait():
                # Presence wakes a sync, too.
                answer = bob.sync(since, timeout=10_000)
                while not messages(answer, room):
                    answer = bob.sync(answer["next_batch"], timeout=10_000)
                return answer, time.monotonic()
            waiting = pool.submit(wait)
            time.sleep(0.03)
            alice.say(room, f"message {number}")
            sent = time.monotonic()
            answer, woken = waiting.result(20)
            check(messages(answer, room) == [f"message {number}"], "the sync brings the message, and once")
            since = answer["next_batch"]
            delays.append((woken - sent) * 1000)
    delays.sort()
    print(f"from the send's answer to the other node's sync: median {statistics.median(delays):.1f} ms, "
          f"longest {delays[-1]:.1f} ms")
    check(delays[-1] < 1_000, "the other node is woken in time")
    return alice, bob, room


def state_is_seen(one, other, alice, bob, room):
    """What one node writes into a room, the other's state shows."""
    path = f"/_matrix/client/v3/rooms/{urllib.parse.quote(room)}/state/m.room.topic/"
    for number in range(20):
        alice.ask("PUT", path, {"topic": f"topic {number}"})
        bob.sync(alice.sync()["next_batch"])
        check(bob.ask("GET", path)["topic"] == f"topic {number}", "the state is the newest")
    target = alice.say(room, "to be redacted")
    bob.sync(alice.sync()["next_batch"])
    event = f"/_matrix/client/v3/rooms/{urllib.parse.quote(room)}/event/{urllib.parse.quote(target)}"
    check(bob.ask("GET", event)["content"].get("body") == "to be redacted", "the event is there")
    alice.ask("PUT", f"/_matrix/client/v3/rooms/{urllib.parse.quote(room)}/redact/{urllib.parse.quote(target)}/r1", {})
    bob.sync(alice.sync()["next_batch"])
    check(bob.ask("GET", event)["content"] == {}, "A23: what was redacted on one node is redacted on the other")


def rights_end_everywhere(one, other, alice, room):
    """A28: a logout, A20: a kick on one node holds on the other from the moment it is acknowledged."""
    eve = Client(one.url).register("eve")
    eve.join(room)
    for number in range(30):
        here = Client(one.url).log_in("eve")
        there = here.at(other.url)
        there.ask("GET", "/_matrix/client/v3/account/whoami")
        here.ask("POST", "/_matrix/client/v3/logout")
        check(refused(401, lambda: there.ask("GET", "/_matrix/client/v3/account/whoami")),
              f"A28: after a logout on one node the token is over on the other ({number})")
    there = eve.at(other.url)
    quoted = urllib.parse.quote(room)
    for number in range(15):
        there.say(room, "still here")
        since = there.sync()["next_batch"]
        alice.ask("POST", f"/_matrix/client/v3/rooms/{quoted}/kick", {"user_id": eve.user})
        check(refused(403, lambda: there.say(room, "not any more")), "A20: who was kicked can't send on the other node")
        secret = f"secret {number}"
        alice.say(room, secret)
        check(secret not in messages(there.sync(since), room), "A20: who was kicked hears nothing on the other node")
        check(secret not in [body for _, body in there.history(room)], "A20: who was kicked reads nothing new")
        there.join(room)


def hot_room(one, other, alice, bob):
    """Both nodes write into one room as fast as they can."""
    room = alice.create_room()
    bob.join(room)
    users, each = 4, 50
    slowest = {}

    def write(name, client):
        sent = []
        for number in range(each):
            started = time.monotonic()
            sent.append(client.say(room, f"{name} {number}"))
            slowest[name[0]] = max(slowest.get(name[0], 0), time.monotonic() - started)
        return sent

    start = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(2 * users) as pool:
        jobs = [pool.submit(write, f"a{n}", alice.at(one.url)) for n in range(users)]
        jobs += [pool.submit(write, f"b{n}", bob.at(other.url)) for n in range(users)]
        sent = [event for job in jobs for event in job.result(120)]
    took = time.monotonic() - start
    found = bob.history(room)
    check(len(found) == len(sent) and {event for event, _ in found} == set(sent), "every message is there once")
    for name in {body.split()[0] for _, body in found}:
        order = [int(body.split()[1]) for _, body in found if body.split()[0] == name]
        check(order == sorted(order), f"the messages of {name} are in order")
    print(f"two nodes in one room: {len(sent)} messages in {took:.1f} s, the slowest took "
          + " and ".join(f"{seconds * 1000:.0f} ms" for seconds in slowest.values()))


def killed_under_load(one, other, alice, bob):
    """SIGKILL of one node: what it acknowledged is there once, and the other goes on meanwhile."""
    room = alice.create_room()
    bob.join(room)
    acknowledged, lock, stop = {}, threading.Lock(), threading.Event()
    longest = [0.0]

    def write(name, client, is_killed):
        number = 0
        while not stop.is_set():
            transaction = f"{name}-{number}"
            started = time.monotonic()
            try:
                event = client.say(room, transaction, transaction)
            except Exception as error:
                if not is_killed:
                    raise AssertionError(f"the other node fails: {error}")
                time.sleep(0.1)
                continue
            if not is_killed:
                longest[0] = max(longest[0], time.monotonic() - started)
            with lock:
                check(acknowledged.setdefault(transaction, event) == event, "a transaction makes one event")
            number += 1

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        jobs = [pool.submit(write, f"k{n}", alice.at(one.url), True) for n in range(3)]
        jobs += [pool.submit(write, f"s{n}", bob.at(other.url), False) for n in range(3)]
        for _ in range(3):
            time.sleep(0.7)
            one.kill()
            time.sleep(0.5)
            one.start()
        time.sleep(0.7)
        stop.set()
        for job in jobs:
            job.result(60)
    for client in (bob, alice.at(one.url)):
        found = client.history(room)
        check(len(found) == len({event for event, _ in found}), "no event comes twice")
        check(len(found) == len({body for _, body in found}), "no transaction made two events")
        missing = set(acknowledged.values()) - {event for event, _ in found}
        check(not missing, f"{len(missing)} acknowledged messages are lost")
    print(f"killed three times under load: {len(acknowledged)} acknowledged messages are there once; "
          f"the other node took {longest[0] * 1000:.0f} ms at most")


def takes_over(one, other, alice, peer):
    """One of the nodes tells other servers what happens, under a lease. Whichever is killed, the other one goes on with it."""
    room = alice.at(one.url).create_room()
    pam = Client(peer.url).register("pam")
    pam.ask("POST", f"/_matrix/client/v3/join/{urllib.parse.quote(room)}?via={urllib.parse.quote(one.name)}")
    longest = 0
    for killed, left in ((one, other), (other, one)):
        killed.kill()
        text = f"{left.url} goes on"
        alice.at(left.url).say(room, text)
        started = time.monotonic()
        while text not in [body for _, body in pam.history(room)]:
            check(time.monotonic() - started < 60, "the other node takes over telling other servers")
            time.sleep(0.2)
        longest = max(longest, time.monotonic() - started)
        killed.start()
    print(f"the node that tells other servers was killed: the other one went on after {longest:.1f} s at most")


def main():
    with tempfile.TemporaryDirectory() as place, PostgresDatabase() as database:
        authority = Authority(place)
        os.environ.update({
            "ROOST_DATABASE_URL": database.url, "ROOST_REGISTRATION_MODE": "open",
            "ROOST_RATE_LIMITS_ENABLED": "false"})
        one = FederatingRoost(authority, "node")
        # The second node has the same name and no listener for other servers.
        own = {"ROOST_LISTENERS": None, "ROOST_LOG_LEVEL": None}
        other = Roost(environment={key: value for key, value in one.environment.items() if key not in own})
        # A server of its own must not share the database.
        peer = FederatingRoost(authority, "peer")
        peer.environment["ROOST_DATABASE_URL"] = f"sqlite:{peer.directory}/roost.db"
        # Both at once on an empty database.
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda node: node.start(), (one, other)))
        try:
            alice, bob, room = talk(one, other)
            state_is_seen(one, other, alice, bob, room)
            rights_end_everywhere(one, other, alice, room)
            hot_room(one, other, alice, bob)
            killed_under_load(one, other, alice, bob)
            with peer:
                takes_over(one, other, alice, peer)
            keys = database.sql("SELECT count(*) FROM signing_keys")
            check(keys == [["1"]], "both nodes sign with one key")
        except BaseException:
            print(one.log(), other.log(), sep="\n----\n")
            raise
        finally:
            for node in (one, other):
                if node.process.poll() is None:
                    node.stop()
    print("two nodes: all as it should be")


main()
