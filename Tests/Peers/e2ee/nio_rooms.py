"""Two people with two devices each talk in an encrypted room with matrix-nio: every device reads everything, keys rotate when
somebody leaves, a new device asks for a key and gets it, a picture travels encrypted, and devices are verified by emoji."""

import asyncio
import io
import logging
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))

import nio  # noqa: E402
from nio.crypto.attachments import decrypt_attachment  # noqa: E402
from nio_device import Device, check, good, settle, verify  # noqa: E402
from roost_server import Roost  # noqa: E402


async def talk(server):
    alice, tablet = Device(server.url, "alice", "ALICEONE"), Device(server.url, "alice", "ALICETWO")
    bob, laptop = Device(server.url, "bob", "BOBONE"), Device(server.url, "bob", "BOBTWO")
    carol = Device(server.url, "carol", "CAROL")
    people = [alice, tablet, bob, laptop, carol]
    for name in ("alice", "bob", "carol"):
        registration = nio.AsyncClient(server.url, name)
        good(await registration.register(name, f"{name}'s password"), nio.RegisterResponse)
        good(await registration.logout(), nio.LogoutResponse)
        await registration.close()
    for device in people:
        await device.log_in(f"{device.client.user}'s password")
        await device.settle()
    room = good(
        await alice.client.room_create(
            name="Secrets", invite=["@bob:localhost", "@carol:localhost"],
            initial_state=[nio.EnableEncryptionBuilder().as_dict()]),
        nio.RoomCreateResponse).room_id
    for device in (bob, carol):
        good(await device.client.join(room), nio.JoinResponse)
    await settle(*people)
    check(alice.client.rooms[room].encrypted, "the room is not encrypted")

    # Everybody reads everybody, on all devices.
    texts = []
    for number, device in enumerate(people * 2):
        texts.append(f"{device.client.device_id} says {number}")
        await device.say(room, texts[-1])
        await settle(*people)
    for device in people:
        own = {text for text in texts if text.startswith(device.client.device_id)}
        check(set(texts) - own <= set(device.read), f"{device.client.device_id} lacks {set(texts) - set(device.read)}")
        check(not device.unread, f"{device.client.device_id} can't read {device.unread}")

    # After somebody leaves, keys are others, and who left doesn't get them.
    before = await alice.session_of(room, await alice.say(room, "with carol"))
    await settle(*people)
    good(await carol.client.room_leave(room), nio.RoomLeaveResponse)
    await settle(*people)
    late = await alice.say(room, "without carol")
    check(await alice.session_of(room, late) != before, "the session is the same after carol has left")
    await settle(*people)
    check("without carol" in bob.read and "without carol" in laptop.read, "bob can't read after carol has left")
    session = await alice.session_of(room, late)
    check(
        carol.client.olm.inbound_group_store.get(room, alice.client.olm.account.identity_keys["curve25519"], session)
        is None, "carol has the key of what was said without her")

    # A picture, encrypted for whoever has the event.
    picture = bytes(range(256)) * 40
    upload, keys = await bob.client.upload(
        io.BytesIO(picture), content_type="image/png", filename="secret.png", encrypt=True, filesize=len(picture))
    uri = good(upload, nio.UploadResponse).content_uri
    content = {
        "msgtype": "m.image", "body": "secret.png", "info": {"mimetype": "image/png"}, "file": {**keys, "url": uri}}
    good(
        await bob.client.room_send(room, "m.room.message", content, ignore_unverified_devices=True),
        nio.RoomSendResponse)
    await settle(*people)
    image = tablet.read["secret.png"]
    download = good(await tablet.client.download(mxc=image.url), nio.DownloadResponse)
    check(download.body != picture, "the picture was uploaded as it is")
    check(
        decrypt_attachment(download.body, image.key["k"], image.hashes["sha256"], image.iv) == picture,
        "the picture came back changed")

    await verify(alice, bob)

    # A device that wasn't there asks another one of its user for the key, which is given once the device is verified.
    watch = Device(server.url, "alice", "ALICETHREE")
    await watch.log_in("alice's password")
    await settle(watch, alice, tablet)
    missing = next(event for event in watch.unread if event.event_id == late)
    await verify(alice, watch)
    good(await watch.client.request_room_key(missing), nio.RoomKeyRequestResponse)
    await settle(alice, watch, alice, watch)
    event = good(await watch.client.room_get_event(room, late), nio.RoomGetEventResponse).event
    if isinstance(event, nio.MegolmEvent):
        event = watch.client.decrypt_event(event)
    check(event.body == "without carol", "the key that was asked for did not come")

    # A device that ends is gone from the lists of those who share a room.
    good(await laptop.client.logout(), nio.LogoutResponse)
    await settle(alice)
    check(
        [device.id for device in alice.client.device_store.active_user_devices("@bob:localhost")] == ["BOBONE"],
        "alice still knows the device that ended")
    for device in people + [watch]:
        await device.close()


def main():
    # What a device can't read, because it was said before it was there, is no news.
    logging.getLogger("nio").setLevel(logging.CRITICAL)
    with Roost("--open-registration") as server:
        asyncio.run(asyncio.wait_for(talk(server), 300))
        check(server.stop() == 0, "the server does not stop with status 0")
    print("matrix-nio: two people with two devices each talked in secret, through rotation, key requests and verification")


main()
