"""Three Roosts with TLS certificates of a private authority, found as the specification says: one by a document that delegates it to
another name and port, one at port 8448 of its name, one by a service record. They talk; one is restarted; a fourth has a certificate for
another name, a fifth one of another authority, and nobody speaks to either."""

import pathlib
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))

from authority import Authority  # noqa: E402
from federated_person import check, everybody_reads, person  # noqa: E402
from federating import FederatingRoost  # noqa: E402
from postgres_database import Failed  # noqa: E402
from private_network import NameServer, enter  # noqa: E402


def talk(people):
    """Each makes a room that the others join, and all talk in all of them."""
    rooms = []
    for maker in people:
        room = maker.create_room()
        others = [someone for someone in people if someone is not maker]
        for someone in others:
            someone.join_via(room, maker.server)
        texts = [f"{someone.user} in the room of {maker.user}" for someone in people]
        for someone, text in zip(people, texts):
            someone.say(room, text)
        everybody_reads(room, texts, people)
        rooms.append((room, texts))
    return rooms


def refused(stranger, server, people, reason):
    """A server whose certificate doesn't prove its name is not spoken to, and what it asks for is not believed."""
    room = stranger.create_room()
    for someone in people:
        try:
            someone.join_via(room, stranger.server)
            check(False, f"{someone.user} spoke to {stranger.server}")
        except Failed as failure:
            check(failure.status == 502 and reason in str(failure), f"refused for another reason: {failure}")
    room = people[0].create_room()
    try:
        stranger.join_via(room, people[0].server)
        check(False, f"{stranger.server} was believed")
    except Failed as failure:
        check(failure.status == 502, f"refused clearly: {failure}")
    check(" 500" not in server.whole_log(), "nothing went wrong unseen")


def main():
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        enter(place)
        authority = Authority(place)
        (pathlib.Path(place) / "strangers").mkdir()
        strangers = Authority(pathlib.Path(place) / "strangers")
        names = NameServer(
            {name: "127.0.0.1" for name in (
                "alpha.test", "matrix.alpha.test", "beta.test", "host.gamma.test", "delta.test", "epsilon.test")},
            {"_matrix-fed._tcp.gamma.test": (10, 5, 7443, "host.gamma.test")})
        certificate, key = authority.issue("web", "DNS:alpha.test")
        web = {"address": "127.0.0.1", "port": 443, "serve": ["client"],
               "tls": {"certificate": str(certificate), "key": str(key)}}
        with FederatingRoost(authority, "alpha", "alpha.test", 9443, "DNS:matrix.alpha.test", [web],
                             ROOST_FEDERATION_PUBLIC_ADDRESS="matrix.alpha.test:9443") as alpha, \
                FederatingRoost(authority, "beta", "beta.test", 8448, "DNS:beta.test") as beta, \
                FederatingRoost(authority, "gamma", "gamma.test", 7443, "DNS:gamma.test") as gamma:
            people = [person(alpha, "alice"), person(beta, "bob"), person(gamma, "carol")]
            rooms = talk(people)
            check(("_matrix-fed._tcp.gamma.test", NameServer.SRV) in names.asked, "gamma was found by its record")
            check(("matrix.alpha.test", NameServer.A) in names.asked, "alpha was found where its document leads")
            print(f"three servers talk after {time.monotonic() - started:.1f} s", flush=True)

            # One is away: it reads what was said meanwhile, and others read what it says then.
            beta.stop()
            for someone in (people[0], people[2]):
                for room, texts in rooms:
                    texts.append(f"{someone.user} while beta is away")
                    someone.say(room, texts[-1])
            people[1].connection = None
            beta.start()
            for room, texts in rooms:
                everybody_reads(room, texts, people)
                texts.append("back")
                people[1].say(room, "back")
                everybody_reads(room, texts, people)
            print(f"one was restarted: {time.monotonic() - started:.1f} s", flush=True)

            with FederatingRoost(authority, "delta", "delta.test:8449", 8449, "DNS:beta.test,IP:127.0.0.1") as delta:
                refused(person(delta, "mallory"), delta, people, "delta.test")
            with FederatingRoost(strangers, "epsilon", "epsilon.test:8450", 8450, "DNS:epsilon.test",
                                 ROOST_FEDERATION_CA_CERTIFICATES=f'["{authority.certificate}"]') as epsilon:
                refused(person(epsilon, "mallory"), epsilon, people, "epsilon.test")
            # All that changed nothing between the others.
            for room, texts in rooms:
                texts.append("the end")
                people[0].say(room, "the end")
                everybody_reads(room, texts, people)
            for server in (alpha, beta, gamma):
                check(" 500" not in server.whole_log(), "nothing went wrong unseen")
    print(f"servers find one another by their names, and trust no wrong certificate: {time.monotonic() - started:.1f} s")


main()
