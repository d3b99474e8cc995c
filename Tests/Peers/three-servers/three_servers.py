"""A room outlives the server on which it was made: two Roosts and a Synapse are in it, the creator's Roost is killed for good, and the
other two go on, with each other's people and with a fourth server that never met the first."""

import pathlib
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))

from authority import Authority  # noqa: E402
from federated_person import check, eventually, everybody_reads, person, versions  # noqa: E402
from federating import FederatingRoost, Synapse  # noqa: E402


def everybody_sees(room, kind, content, people, key=""):
    for someone in people:
        eventually(f"{someone.user} sees {kind} {key}: {content}",
                   lambda: content.items() <= someone.state(room, kind, key).items(), 30)


def with_the_creator(alice, bob, carol, version):
    room = alice.create_room(room_version=version, name=f"Version {version}")
    bob.join_via(room, alice.server)
    carol.join_via(room, bob.server)
    people = [alice, bob, carol]
    # Whoever can't be reached any more can't give anybody rights: the others get them before.
    levels = alice.state(room, "m.room.power_levels")
    levels["users"] = {**levels.get("users", {}), bob.user: 90, carol.user: 90}
    alice.set_state(room, "m.room.power_levels", levels)
    everybody_sees(room, "m.room.power_levels", {"users": levels["users"]}, people)
    texts = [f"{someone.user} is here" for someone in people]
    for someone, text in zip(people, texts):
        someone.say(room, text)
    everybody_reads(room, texts, people)
    return room, texts


def without_the_creator(room, texts, bob, carol, dave, erin):
    # Both talk at the same time, without waiting for one another: the room forks and comes together.
    for number in range(5):
        texts += [f"bob {number}", f"carol {number}"]
        bob.say(room, f"bob {number}")
        carol.say(room, f"carol {number}")
    everybody_reads(room, texts, [bob, carol])
    bob.set_state(room, "m.room.topic", {"topic": "of bob"})
    everybody_sees(room, "m.room.topic", {"topic": "of bob"}, [bob, carol])
    carol.set_state(room, "m.room.name", {"name": "of carol"})
    everybody_sees(room, "m.room.name", {"name": "of carol"}, [bob, carol])
    # Somebody new on each side.
    dave.join_via(room, carol.server)
    erin.join_via(room, bob.server)
    people = [bob, carol, dave, erin]
    for someone in people:
        everybody_sees(room, "m.room.member", {"membership": "join"}, people, someone.user)
    for someone in people:
        texts.append(f"{someone.user} goes on")
        someone.say(room, texts[-1])
    everybody_reads(room, texts, people)
    # Each side's server leaves the room altogether, and is let in again by the other alone.
    for leaving, staying in (((bob, dave), carol), ((carol, erin), bob)):
        for someone in leaving:
            someone.ask("POST", someone.room(room, "leave"))
            everybody_sees(room, "m.room.member", {"membership": "leave"}, [staying], someone.user)
        texts.append(f"{staying.user} is left")
        staying.say(room, texts[-1])
        for someone in leaving:
            eventually("the door is open", lambda: someone.join_via(room, staying.server))
        for someone in leaving:
            everybody_sees(room, "m.room.member", {"membership": "join"}, [staying], someone.user)
            texts.append(f"{someone.user} is back")
            someone.say(room, texts[-1])
        everybody_reads(room, texts, people)
    everybody_sees(room, "m.room.topic", {"topic": "of bob"}, people)
    return people


def somebody_who_never_met_the_creator(rooms, newcomer):
    for room, texts, people in rooms:
        newcomer.join_via(room, people[0].server)
        texts.append("a newcomer")
        newcomer.say(room, texts[-1])
        everybody_reads(room, texts, people + [newcomer])
        everybody_sees(room, "m.room.name", {"name": "of carol"}, [newcomer])


def main():
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        authority = Authority(place)
        with FederatingRoost(authority, "first") as first, FederatingRoost(authority, "second") as second, \
                Synapse(authority) as synapse:
            alice, bob, carol = person(first, "alice"), person(second, "bob"), person(synapse, "carol")
            dave, erin = person(second, "dave"), person(synapse, "erin")
            known = [version for version in versions(alice, carol) if int(version) >= 11]
            check("11" in known, f"both know version 11: {known}")
            rooms = [with_the_creator(alice, bob, carol, version) for version in known]
            print(f"versions {', '.join(known)}: three servers talk after {time.monotonic() - started:.1f} s", flush=True)
            first.kill()
            rooms = [(room, texts, without_the_creator(room, texts, bob, carol, dave, erin)) for room, texts in rooms]
            print(f"two go on without the third: {time.monotonic() - started:.1f} s", flush=True)
            # The keys of a server that is gone come from one that has known it.
            with FederatingRoost(authority, "fourth", ROOST_FEDERATION_KEY_SERVERS=f'["{second.name}"]') as fourth:
                somebody_who_never_met_the_creator(rooms, person(fourth, "newcomer"))
                check(" 500" not in fourth.whole_log(), "nothing went wrong unseen at the fourth")
            check(" 500" not in second.whole_log(), "nothing went wrong unseen at the second")
    print(f"a room outlives its creator's server: {time.monotonic() - started:.1f} s")


main()
