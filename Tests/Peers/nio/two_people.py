"""Two people with matrix-nio: they register, meet in a room, talk, send a picture, page back, type and read; then the
server is killed, starts again, and both go on from their last sync tokens with nothing lost and nothing twice."""

import asyncio
import io
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))

import nio  # noqa: E402
from roost_server import Roost  # noqa: E402

PICTURE = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8cfc0000003010100c9fe92"
    "ef0000000049454e44ae426082")


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def good(response, kind):
    check(isinstance(response, kind), f"{kind.__name__} expected, got {response!r}")
    return response


class Person:
    """A client that keeps every message it is shown, in the order of being shown."""

    def __init__(self, url, name):
        self.client = nio.AsyncClient(url, name)
        self.shown = []
        self.token = None

    async def register(self, password):
        response = good(await self.client.register(self.client.user, password, "nio"), nio.RegisterResponse)
        check(response.user_id == f"@{self.client.user}:localhost", f"registered as {response.user_id}")

    async def sync(self, room=None, timeout=0):
        response = good(
            await self.client.sync(timeout=timeout, since=self.token), nio.SyncResponse)
        if room and room in response.rooms.join:
            timeline = response.rooms.join[room].timeline
            if timeline.limited and self.token is not None:
                raise AssertionError("an unexpected gap in the timeline")
            for event in timeline.events:
                if isinstance(event, nio.RoomMessage):
                    self.shown.append(event.event_id)
        self.token = response.next_batch
        return response

    async def say(self, room, text, transaction=None):
        response = good(
            await self.client.room_send(
                room, "m.room.message", {"msgtype": "m.text", "body": text}, tx_id=transaction),
            nio.RoomSendResponse)
        return response.event_id


async def talk(server):
    alice, bob = Person(server.url, "alice"), Person(server.url, "bob")
    await alice.register("correct horse")
    await bob.register("battery staple")

    room = good(await alice.client.room_create(name="Two people"), nio.RoomCreateResponse).room_id
    await bob.sync()
    good(await alice.client.room_invite(room, "@bob:localhost"), nio.RoomInviteResponse)
    invited = await bob.sync(timeout=10_000)
    check(room in invited.rooms.invite, "the invitation did not arrive")
    check(bob.client.invited_rooms[room].name == "Two people", "the invitation does not name the room")
    good(await bob.client.join(room), nio.JoinResponse)
    await alice.sync(room)
    await bob.sync(room)
    check(len(bob.client.rooms[room].users) == 2, "bob does not see both members")
    check(bob.client.rooms[room].display_name == "Two people", "bob does not see the room's name")

    sent = []
    for number in range(30):
        speaker = (alice, bob)[number % 2]
        sent.append(await speaker.say(room, f"message {number}"))
        if number % 7 == 0:
            await alice.sync(room)
            await bob.sync(room)

    # A picture, up and down again.
    upload, _ = await alice.client.upload(
        io.BytesIO(PICTURE), content_type="image/png", filename="dot.png", filesize=len(PICTURE))
    uri = good(upload, nio.UploadResponse).content_uri
    response = good(
        await alice.client.room_send(
            room, "m.room.message",
            {"msgtype": "m.image", "body": "dot.png", "url": uri, "info": {"mimetype": "image/png"}}),
        nio.RoomSendResponse)
    sent.append(response.event_id)
    download = good(await bob.client.download(mxc=uri), nio.DownloadResponse)
    check(download.body == PICTURE, "the picture came back changed")
    check(download.content_type == "image/png", f"the picture is a {download.content_type}")

    # Typing and receipts.
    await alice.sync(room)
    good(await bob.client.room_typing(room, True, timeout=20_000), nio.RoomTypingResponse)
    await alice.sync(room, timeout=10_000)
    check(alice.client.rooms[room].typing_users == ["@bob:localhost"], "alice does not see bob typing")
    good(await bob.client.room_typing(room, False), nio.RoomTypingResponse)
    await alice.sync(room, timeout=10_000)
    check(alice.client.rooms[room].typing_users == [], "alice sees bob typing for ever")
    good(await bob.client.update_receipt_marker(room, sent[-1]), nio.UpdateReceiptMarkerResponse)
    await alice.sync(room, timeout=10_000)
    # matrix-nio reads in the main thread unless told otherwise.
    receipts = alice.client.rooms[room].threaded_read_receipts
    check(receipts["@bob:localhost"]["main"].event_id == sent[-1], "alice does not see what bob has read")

    # Back to the beginning.
    await bob.sync(room)
    back, start = [], bob.token
    while True:
        page = good(
            await bob.client.room_messages(room, start, limit=7, direction=nio.MessageDirection.back),
            nio.RoomMessagesResponse)
        back += [event.event_id for event in page.chunk if isinstance(event, nio.RoomMessage)]
        if not page.end or not page.chunk:
            break
        start = page.end
    check(back == sent[::-1], "paging back shows other messages than were sent")

    # What waits while the server dies answers when it is back.
    await alice.sync(room)
    await bob.sync(room)
    check(alice.shown == sent and bob.shown == sent, "a message is missing, doubled or out of order before the kill")
    transaction = "the-one-that-is-repeated"
    repeated = await alice.say(room, "before the kill", transaction)
    sent.append(repeated)
    await kill_while_talking(server, alice, bob, room, sent)
    check(await alice.say(room, "before the kill", transaction) == repeated, "a transaction made two events")

    for number in range(5):
        sent.append(await bob.say(room, f"after the kill {number}"))
    for person in (alice, bob):
        await person.sync(room)
        check(person.shown == sent, "a message is missing, doubled or out of order after the kill")
    # Someone who signs in afresh sees the same.
    again = Person(server.url, "alice")
    good(await again.client.login("correct horse", "another device"), nio.LoginResponse)
    await again.sync()
    good(await again.client.room_leave(room), nio.RoomLeaveResponse)
    left = await bob.sync(room)
    check(room in left.rooms.join and "@alice:localhost" not in bob.client.rooms[room].users, "alice is still there")
    ended = again.client.access_token
    good(await again.client.logout(), nio.LogoutResponse)
    again.client.access_token = ended
    check(isinstance(await again.client.sync(), nio.SyncError), "a token works after logging out")
    for person in (alice, bob, again):
        await person.client.close()


async def kill_while_talking(server, alice, bob, room, sent):
    """Both write as fast as they can while the server is killed; what was acknowledged must be there afterwards."""
    acknowledged = {"alice": [], "bob": []}

    async def write(person, name):
        for number in range(10_000):
            content = {"msgtype": "m.text", "body": f"{name} {number} in the storm"}
            try:
                response = await asyncio.wait_for(
                    person.client.room_send(room, "m.room.message", content, tx_id=f"storm-{number}"), 2)
            except (asyncio.TimeoutError, OSError):
                return number
            if not isinstance(response, nio.RoomSendResponse):
                return number
            acknowledged[name].append(response.event_id)

    writers = [asyncio.create_task(write(alice, "alice")), asyncio.create_task(write(bob, "bob"))]
    while len(acknowledged["alice"]) < 20 or len(acknowledged["bob"]) < 20:
        check(not any(writer.done() for writer in writers), "writing ended before the kill")
        await asyncio.sleep(0.01)
    await asyncio.to_thread(server.kill)
    stopped = await asyncio.gather(*writers)
    await asyncio.to_thread(server.start)
    # The message that was under way is sent again with its transaction ID, as a client does.
    for person, name, number in zip((alice, bob), ("alice", "bob"), stopped):
        event = await person.say(room, f"{name} {number} in the storm", f"storm-{number}")
        acknowledged[name].append(event)
    for person in (alice, bob):
        shown = len(person.shown)
        response = await person.client.sync(timeout=0, since=person.token, sync_filter={"room": {"timeline": {"limit": 1000}}})
        person.token = good(response, nio.SyncResponse).next_batch
        person.shown += [
            event.event_id for event in response.rooms.join[room].timeline.events if isinstance(event, nio.RoomMessage)]
        news = person.shown[shown:]
        check(news[0] == sent[-1], "the message before the storm is lost")
        for name, events in acknowledged.items():
            check([event for event in news if event in set(events)] == events, f"an acknowledged message of {name} is lost or doubled")
        check(len(news) == 1 + sum(map(len, acknowledged.values())), "a message was stored twice")
        final = news[1:]
    sent += final


def main():
    with Roost("--open-registration") as server:
        asyncio.run(asyncio.wait_for(talk(server), 120))
        check(server.stop() == 0, "the server does not stop with status 0")
    print("two people talked, through a SIGKILL: nothing lost, nothing twice")


main()
