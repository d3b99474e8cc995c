"""Talking: messages, state, context, redactions, relations, threads, receipts, typing, search."""

import json

import nio
from mautrix.types import EventType, PaginationDirection
from nio.api import RelationshipType
from people import CLIENT, CLIENT_V1, check, good, quoted, same


async def journey(people):
    alice, bob, carol = people.alice, people.bob, people.carol
    room = good(
        await alice.client.room_create(preset=nio.RoomPreset.public_chat, name="Salon"), nio.RoomCreateResponse).room_id
    good(await bob.client.join(room), nio.JoinResponse)
    await carol.client.join_room(room)
    for who in (alice, bob):
        await who.sync()
    sent = [await (alice, bob)[number % 2].say(room, f"message {number}") for number in range(12)]
    sent.append(await carol.client.send_text(room, "message 12"))
    await history(people, room, sent)
    await state(people, room)
    await relations(people, room, sent)
    await reading(people, room, sent)
    await redaction(people, room, sent)
    await search(people, room)


async def history(people, room, sent):
    alice, bob, carol = people.alice, people.bob, people.carol
    # The same transaction again makes nothing new.
    body = {"msgtype": "m.text", "body": "once"}
    path = f"{CLIENT}/rooms/{quoted(room)}/send/m.room.message/again"
    one, two = await bob.ask("PUT", path, body), await bob.ask("PUT", path, body)
    same(one, two, "a repeated transaction")
    sent.append(one["event_id"])
    shown = (await alice.sync()).rooms.join[room].timeline.events
    same([event.event_id for event in shown if isinstance(event, nio.RoomMessage)], sent[-len(shown):], "alice's timeline")
    found, start = [], None
    while True:
        page = good(await bob.client.room_messages(room, start, limit=4), nio.RoomMessagesResponse)
        found += [event.event_id for event in page.chunk if isinstance(event, nio.RoomMessage)]
        start = page.end
        if not start:
            break
    same(found[::-1], sent, "paging back")
    page = await carol.client.get_messages(room, PaginationDirection.FORWARD, limit=100)
    same([event.event_id for event in page.events if event.type == EventType.ROOM_MESSAGE], sent, "paging forward")
    only_bob = {"senders": ["@bob:localhost"], "types": ["m.room.message"], "lazy_load_members": True}
    page = await carol.ask("GET", f"{CLIENT}/rooms/{quoted(room)}/messages", dir="b", limit=50, filter=json.dumps(only_bob))
    same({event["sender"] for event in page["chunk"]}, {"@bob:localhost"}, "who is in a filtered page")
    same([event["state_key"] for event in page["state"]], ["@bob:localhost"], "the members that come with it")
    around = good(await bob.client.room_context(room, sent[5], limit=4), nio.RoomContextResponse)
    same([event.event_id for event in around.events_before], [sent[4], sent[3]], "what was before")
    same([event.event_id for event in around.events_after], [sent[6], sent[7]], "what came after")
    context = await carol.client.get_event_context(room, sent[5], limit=2)
    same(context.event.event_id, sent[5], "the event in the middle")
    event = good(await alice.client.room_get_event(room, sent[12]), nio.RoomGetEventResponse).event
    same((event.body, event.sender), ("message 12", "@carol:localhost"), "carol's message")
    same((await carol.client.get_event(room, sent[0])).content.body, "message 0", "the first message")
    first = await alice.ask("GET", f"{CLIENT_V1}/rooms/{quoted(room)}/timestamp_to_event", ts=0, dir="f")
    check(first["event_id"].startswith("$"), "no event is the first")
    await bob.ask("GET", f"{CLIENT}/rooms/{quoted(room)}/event/$nothing", status=404, code="M_NOT_FOUND")
    large = {"msgtype": "m.text", "body": "x" * 66_000}
    await bob.ask("PUT", f"{CLIENT}/rooms/{quoted(room)}/send/m.room.message/large", large, status=413, code="M_TOO_LARGE")


async def state(people, room):
    alice, bob, carol = people.alice, people.bob, people.carol
    good(await alice.client.room_put_state(room, "m.room.topic", {"topic": "Today"}), nio.RoomPutStateResponse)
    refused = await bob.client.room_put_state(room, "m.room.topic", {"topic": "Tomorrow"})
    check(isinstance(refused, nio.RoomPutStateError), "bob sets the topic")
    same(good(await bob.client.room_get_state_event(room, "m.room.topic"), nio.RoomGetStateEventResponse).content["topic"],
         "Today", "the topic")
    whole = await bob.ask("GET", f"{CLIENT}/rooms/{quoted(room)}/state/m.room.topic", format="event")
    same((whole["type"], whole["sender"]), ("m.room.topic", "@alice:localhost"), "the whole event")
    everything = good(await bob.client.room_get_state(room), nio.RoomGetStateResponse).events
    check({"m.room.create", "m.room.member", "m.room.topic"} <= {event["type"] for event in everything}, "state is missing")
    same(str((await carol.client.get_state_event(room, EventType.ROOM_TOPIC)).topic), "Today", "the topic to carol")
    levels = await carol.client.get_state_event(room, EventType.ROOM_POWER_LEVELS)
    levels.users["@bob:localhost"] = 50
    await alice.ask("PUT", f"{CLIENT}/rooms/{quoted(room)}/state/m.room.power_levels", levels.serialize())
    good(await bob.client.room_put_state(room, "m.room.topic", {"topic": "Tomorrow"}), nio.RoomPutStateResponse)


async def relations(people, room, sent):
    alice, bob, carol = people.alice, people.bob, people.carol
    root = sent[0]

    def related(kind, event, **more):
        return {"msgtype": "m.text", "body": kind, "m.relates_to": {"rel_type": kind, "event_id": event, **more}}

    edit = await alice.say(room, {**related("m.replace", root), "m.new_content": {"msgtype": "m.text", "body": "edited"}})
    replies = [await bob.say(room, related("m.thread", root)), await carol_says(carol, room, related("m.thread", root))]
    reaction = await carol.client.react(room, root, "👍")
    await carol.ask(
        "PUT", f"{CLIENT}/rooms/{quoted(room)}/send/m.reaction/twice",
        {"m.relates_to": {"rel_type": "m.annotation", "event_id": root, "key": "👍"}}, status=400,
        code="M_DUPLICATE_ANNOTATION")
    reference = await bob.say(room, related("m.reference", root))
    shown = (await bob.ask("GET", f"{CLIENT}/rooms/{quoted(room)}/event/{quoted(root)}"))["unsigned"]["m.relations"]
    same(shown["m.replace"]["event_id"], edit, "the edit that is shown")
    same((shown["m.thread"]["count"], shown["m.thread"]["latest_event"]["event_id"],
          shown["m.thread"]["current_user_participated"]), (2, replies[1], True), "the thread that is shown")
    same(shown["m.reference"]["chunk"], [{"event_id": reference}], "the references that are shown")
    found = [event.event_id async for event in alice.client.room_get_event_relations(
        room, root, RelationshipType.thread, limit=1)]
    same(found, replies[::-1], "the thread, page by page")
    listed = [event.event_id async for event in alice.client.room_get_event_relations(room, root)]
    same(set(listed), {edit, *replies, reaction, reference}, "all that refers to the message")
    threads = [event.event_id async for event in alice.client.room_get_threads(room)]
    same(threads, [root], "the threads")
    # Redacting a reaction cleans up after it.
    await carol.client.redact(room, reaction)
    path = f"{CLIENT_V1}/rooms/{quoted(room)}/relations/{quoted(root)}/m.annotation/m.reaction"
    same((await alice.ask("GET", path))["chunk"], [], "the reactions that are left")
    await carol.client.react(room, root, "👍")


async def carol_says(carol, room, content):
    return await carol.client.send_message_event(room, EventType.ROOM_MESSAGE, content)


async def reading(people, room, sent):
    alice, bob, carol = people.alice, people.bob, people.carol
    await bob.sync()
    last = await alice.say(room, "bob, do you read this?")
    counted = (await bob.sync()).rooms.join[room].unread_notifications
    check(counted.notification_count >= 1, "bob has nothing to read")
    good(await bob.client.update_receipt_marker(room, last), nio.UpdateReceiptMarkerResponse)
    await alice.sync()
    receipts = alice.client.rooms[room].threaded_read_receipts
    same(receipts["@bob:localhost"]["main"].event_id, last, "what bob has read")
    # matrix-nio reads in the main thread; what carol said in the other one is still to be read.
    counted = (await bob.ask("GET", f"{CLIENT}/sync"))["rooms"]["join"][room]["unread_notifications"]
    same(counted["notification_count"], 1, "what bob has to read in the thread")
    await bob.ask("POST", f"{CLIENT}/rooms/{quoted(room)}/receipt/m.read/{quoted(last)}")
    counted = (await bob.ask("GET", f"{CLIENT}/sync"))["rooms"]["join"][room]["unread_notifications"]
    same(counted["notification_count"], 0, "what bob has to read after reading")
    # A private receipt is told to nobody else.
    last = await alice.say(room, "and this?")
    await carol.client.send_receipt(room, last, "m.read.private")
    await alice.sync()
    check(alice.client.rooms[room].threaded_read_receipts.get("@carol:localhost") is None, "alice sees a private receipt")
    await carol.client.set_fully_read_marker(room, last)
    marker = await carol.client.get_account_data("m.fully_read", room_id=room)
    same(marker["event_id"], last, "how far carol has read")
    good(await bob.client.room_read_markers(room, last, last), nio.RoomReadMarkersResponse)
    good(await bob.client.room_typing(room, True, timeout=30_000), nio.RoomTypingResponse)
    await alice.sync(timeout=10_000)
    same(alice.client.rooms[room].typing_users, ["@bob:localhost"], "who types")
    good(await bob.client.room_typing(room, False), nio.RoomTypingResponse)
    await alice.sync(timeout=10_000)
    same(alice.client.rooms[room].typing_users, [], "who types afterwards")
    listed = await bob.ask("GET", f"{CLIENT}/notifications", limit=5)
    check(any(one["event"]["event_id"] == last for one in listed["notifications"]), "the notification isn't listed")


async def redaction(people, room, sent):
    alice, bob = people.alice, people.bob
    refused = await people.carol.ask(
        "PUT", f"{CLIENT}/rooms/{quoted(room)}/redact/{quoted(sent[0])}/refused", status=403, code="M_FORBIDDEN")
    check(refused["error"], "carol isn't told why she may not")
    good(await alice.client.room_redact(room, sent[1], reason="a slip"), nio.RoomRedactResponse)
    event = await bob.ask("GET", f"{CLIENT}/rooms/{quoted(room)}/event/{quoted(sent[1])}")
    check("body" not in event["content"], "a redacted message has its text")
    same(event["unsigned"]["redacted_because"]["content"].get("reason"), "a slip", "why it was redacted")


async def search(people, room):
    bob, carol = people.bob, people.carol
    await carol.client.send_text(room, "The needle in the haystack")

    async def found(who, term, **criteria):
        body = {"search_categories": {"room_events": {"search_term": term, **criteria}}}
        return (await who.ask("POST", f"{CLIENT}/search", body))["search_categories"]["room_events"]

    answer = await found(bob, "NEEDLE haystack", event_context={"before_limit": 1, "after_limit": 1})
    same([one["result"]["content"]["body"] for one in answer["results"]], ["The needle in the haystack"], "what is found")
    check(answer["results"][0]["context"]["events_before"], "there is nothing before it")
    same((await found(bob, "a slip"))["results"], [], "what is found of redacted words")
    same((await found(bob, "needle", filter={"not_rooms": [room]}))["results"], [], "what is found elsewhere")
