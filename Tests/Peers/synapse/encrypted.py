"""An encrypted room of people on Roost and on Synapse, with matrix-nio: both directions, new devices, keys that rotate after somebody
leaves, a server that is away for a while. Nothing is said that somebody can't read."""

import asyncio
import logging
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))

import nio  # noqa: E402
from authority import Authority  # noqa: E402
from federating import FederatingRoost, Synapse  # noqa: E402
from nio_device import Device, check, good, settle  # noqa: E402


async def patiently(what, holds, *devices):
    """Syncs all devices until something holds: between servers everything takes its time."""
    for _ in range(60):
        await settle(*devices)
        if holds():
            return
        await asyncio.sleep(0.2)
    raise AssertionError(what)


async def person(server, name, *devices):
    registration = nio.AsyncClient(server.url, name)
    good(await registration.register(name, f"{name}'s password"), nio.RegisterResponse)
    good(await registration.logout(), nio.LogoutResponse)
    await registration.close()
    found = []
    for device_id in devices:
        device = Device(server.url, f"@{name}:{server.name}", device_id)
        await device.log_in(f"{name}'s password")
        await device.settle()
        found.append(device)
    return found


def all_read(text, sender, devices):
    return lambda: all(text in device.read for device in devices if device is not sender)


async def talk(roost, synapse):
    alice, = await person(roost, "alice", "ALICEONE")
    carol, = await person(roost, "carol", "CAROL")
    bob, laptop = await person(synapse, "bob", "BOBONE", "BOBTWO")
    people = [alice, carol, bob, laptop]
    room = good(
        await alice.client.room_create(
            name="Secrets", invite=[bob.client.user_id, carol.client.user_id],
            initial_state=[nio.EnableEncryptionBuilder().as_dict()]),
        nio.RoomCreateResponse).room_id
    await patiently("the invitation comes", lambda: room in bob.client.invited_rooms, *people)
    for device in (bob, carol):
        good(await device.client.join(room), nio.JoinResponse)
    await patiently(
        "everybody knows everybody", lambda: all(
            room in device.client.rooms and len(device.client.rooms[room].users) == 3 for device in people), *people)
    for number, device in enumerate(people * 2):
        text = f"{device.client.device_id} says {number}"
        await device.say(room, text)
        await patiently(f"everybody reads “{text}”", all_read(text, device, people), *people)

    # A new device on either side reads what is said from then on.
    for server, name, user in ((roost, "alice", alice), (synapse, "bob", bob)):
        device = Device(server.url, user.client.user_id, f"{name.upper()}NEW")
        await device.log_in(f"{name}'s password")
        people.append(device)
        await patiently(
            "the new device is known on the other side", lambda: all(
                device.client.device_id in other.client.device_store[user.client.user_id]
                for other in people if other.client.user_id != user.client.user_id), *people)
        for speaker in (alice, bob):
            text = f"{speaker.client.device_id} to {device.client.device_id}"
            await speaker.say(room, text)
            await patiently(f"everybody reads “{text}”", all_read(text, speaker, people), *people)

    # Who leaves doesn't get the next keys, on whichever server.
    before = await bob.session_of(room, await bob.say(room, "with carol"))
    await patiently("carol still reads", all_read("with carol", bob, people), *people)
    good(await carol.client.room_leave(room), nio.RoomLeaveResponse)
    people.remove(carol)
    await patiently(
        "bob sees her leave", lambda: carol.client.user_id not in bob.client.rooms[room].users, *people)
    late = await bob.say(room, "without carol")
    await patiently("the others read", all_read("without carol", bob, people), *people)
    check(await bob.session_of(room, late) != before, "the session is the same after carol has left")
    await carol.settle()
    check("without carol" not in carol.read, "carol reads what was said without her")

    # A server that is away gets keys and messages when it is back.
    synapse.stop()
    here = [device for device in people if device.client.homeserver == roost.url]
    for number in range(3):
        await alice.say(room, f"while away {number}")
        await settle(*here)
    synapse.start()
    for number in range(3):
        text = f"while away {number}"
        await patiently(f"everybody reads “{text}”", all_read(text, alice, people), *people)
    roost.kill()
    there = [device for device in people if device not in here]
    await bob.say(room, "while killed")
    await settle(*there)
    roost.start()
    await patiently("everybody reads what was said meanwhile", all_read("while killed", bob, people), *people)
    await alice.say(room, "the end")
    await patiently("everybody reads the end", all_read("the end", alice, people), *people)
    unread = [(device.client.device_id, event.event_id) for device in people[:3] for event in device.unread]
    check(not unread, f"messages that can't be read: {unread}")
    for device in people + [carol]:
        await device.close()


def main():
    logging.getLogger("nio").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as place:
        authority = Authority(place)
        with FederatingRoost(authority, "roost") as roost, Synapse(authority) as synapse:
            asyncio.run(asyncio.wait_for(talk(roost, synapse), 300))
    print("Roost, Synapse and matrix-nio: everybody read everything that was said in secret")


main()
