"""Making rooms, coming in and going out, names, the directory, upgrades, spaces."""

import nio
from nio.responses import PublicRoomsResponse
from mautrix.types import EventType, Membership, RoomCreatePreset, RoomDirectoryVisibility
from people import CLIENT, CLIENT_V1, check, good, quoted, same


async def journey(people):
    await presets(people)
    await coming_and_going(people)
    await names(people)
    await upgrade(people)
    await spaces(people)
    await looking_in(people)


async def content(who, room, kind, key=""):
    return await who.ask("GET", f"{CLIENT}/rooms/{quoted(room)}/state/{kind}/{quoted(key)}")


async def presets(people):
    alice, bob, carol = people.alice, people.bob, people.carol
    for preset, rule in (
            (nio.RoomPreset.private_chat, "invite"), (nio.RoomPreset.trusted_private_chat, "invite"),
            (nio.RoomPreset.public_chat, "public")):
        made = good(
            await alice.client.room_create(
                preset=preset, name="Den", topic="Tea", invite=["@bob:localhost"],
                initial_state=[{"type": "org.example.own", "state_key": "a", "content": {"own": True}}]),
            nio.RoomCreateResponse)
        same((await content(alice, made.room_id, "m.room.join_rules"))["join_rule"], rule, f"the rule of {preset}")
        same(await content(alice, made.room_id, "org.example.own", "a"), {"own": True}, "what was set from the beginning")
        same((await content(alice, made.room_id, "m.room.topic"))["topic"], "Tea", "the topic")
        good(await bob.client.join(made.room_id), nio.JoinResponse)
        await bob.client.room_leave(made.room_id)
    for version in ("1", "6", "9", "10", "11", "12"):
        made = good(await alice.client.room_create(room_version=version), nio.RoomCreateResponse)
        create = await content(alice, made.room_id, "m.room.create")
        same(create.get("room_version", "1"), version, "the version of a room")
    await alice.ask("POST", f"{CLIENT}/createRoom", {"room_version": "none"}, status=400, code="M_UNSUPPORTED_ROOM_VERSION")
    room = await carol.client.create_room(
        preset=RoomCreatePreset.PRIVATE, name="Parlour", power_level_override={"users_default": 10})
    levels = await carol.client.get_state_event(room, EventType.ROOM_POWER_LEVELS)
    same(levels.users_default, 10, "the level of everybody")


async def coming_and_going(people):
    alice, bob, carol = people.alice, people.bob, people.carol
    room = await carol.client.create_room(preset=RoomCreatePreset.PRIVATE, name="Parlour")
    refused = await bob.client.join(room)
    check(isinstance(refused, nio.JoinError), "bob comes in without being invited")
    await carol.client.invite_user(room, "@bob:localhost")
    invited = (await bob.sync()).rooms.invite
    check(room in invited, "bob isn't told of the invitation")
    good(await bob.client.room_leave(room), nio.RoomLeaveResponse)
    await carol.client.invite_user(room, "@bob:localhost", reason="do come")
    good(await bob.client.join(room), nio.JoinResponse)
    check(room in good(await bob.client.joined_rooms(), nio.JoinedRoomsResponse).rooms, "bob isn't in the room")
    check(room in await carol.client.get_joined_rooms(), "carol isn't in the room")
    members = good(await bob.client.joined_members(room), nio.JoinedMembersResponse).members
    same({member.user_id for member in members}, {"@bob:localhost", "@carol:localhost"}, "who is there")

    await carol.client.kick_user(room, "@bob:localhost", reason="late")
    check(isinstance(await bob.client.room_send(room, "m.room.message", {"msgtype": "m.text", "body": "x"}),
                     nio.RoomSendError), "bob talks after being thrown out")
    await carol.client.ban_user(room, "@bob:localhost")
    await carol.ask("POST", f"{CLIENT}/rooms/{quoted(room)}/invite", {"user_id": "@bob:localhost"}, status=403,
                    code="M_FORBIDDEN")
    banned = await carol.client.get_members(room, membership=Membership.BAN)
    same([event.state_key for event in banned], ["@bob:localhost"], "who is banned")
    await carol.client.unban_user(room, "@bob:localhost")
    good(await bob.client.room_forget(room), nio.RoomForgetResponse)
    await bob.ask("GET", f"{CLIENT}/rooms/{quoted(room)}/state", status=403, code="M_FORBIDDEN")
    await carol.ask("POST", f"{CLIENT}/rooms/{quoted(room)}/forget", status=400)

    # Knocking, and being let in.
    await carol.client.send_state_event(room, EventType.ROOM_JOIN_RULES, {"join_rule": "knock"})
    good(await alice.client.room_knock(room, "may I?"), nio.RoomKnockResponse)
    check(room in (await alice.ask("GET", f"{CLIENT}/sync"))["rooms"]["knock"], "alice isn't told that she knocked")
    knocking = await carol.client.get_members(room, membership=Membership.KNOCK)
    same([event.state_key for event in knocking], ["@alice:localhost"], "who knocks")
    await carol.client.invite_user(room, "@alice:localhost")
    good(await alice.client.join(room), nio.JoinResponse)
    # Whoever is in there may come in here.
    other = good(
        await alice.client.room_create(initial_state=[{
            "type": "m.room.join_rules", "state_key": "", "content": {
                "join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": room}]}}]),
        nio.RoomCreateResponse).room_id
    await bob.ask("POST", f"{CLIENT}/join/{quoted(other)}", status=403, code="M_FORBIDDEN")
    await carol.client.join_room_by_id(other)
    mutual = await alice.ask("GET", f"{CLIENT_V1}/mutual_rooms", user_id="@carol:localhost")
    check({room, other} <= set(mutual["joined"]), f"the rooms in common are {mutual}")


async def names(people):
    alice, bob, carol = people.alice, people.bob, people.carol
    room = good(
        await alice.client.room_create(
            visibility=nio.RoomVisibility.public, preset=nio.RoomPreset.public_chat, alias="library", name="Library",
            topic="Books for everybody"), nio.RoomCreateResponse).room_id
    same(good(await bob.client.room_resolve_alias("#library:localhost"), nio.RoomResolveAliasResponse).room_id, room,
         "where #library is")
    same(await carol.client.join_room("#library:localhost"), room, "where carol comes by the alias")
    good(await alice.client.room_put_alias("#books:localhost", room), nio.RoomPutAliasResponse)
    await carol.ask("PUT", f"{CLIENT}/directory/room/%23books:localhost", {"room_id": room}, status=409)
    aliases = await carol.ask("GET", f"{CLIENT}/rooms/{quoted(room)}/aliases")
    same(set(aliases["aliases"]), {"#library:localhost", "#books:localhost"}, "the room's aliases")
    # matrix-nio takes any answer to this for success.
    await bob.ask("DELETE", f"{CLIENT}/directory/room/%23books:localhost", status=403, code="M_FORBIDDEN")
    good(await alice.client.room_delete_alias("#books:localhost"), nio.RoomDeleteAliasResponse)
    await bob.ask("GET", f"{CLIENT}/directory/room/%23books:localhost", status=404, code="M_NOT_FOUND")
    state = f"{CLIENT}/rooms/{quoted(room)}/state/m.room.canonical_alias"
    await alice.ask("PUT", state, {"alias": "#books:localhost"}, status=400, code="M_BAD_ALIAS")
    await alice.ask("PUT", state, {"alias": "no alias"}, status=400, code="M_INVALID_PARAM")

    same(good(await bob.client.room_get_visibility(room), nio.RoomGetVisibilityResponse).visibility, "public",
         "whether it is listed")
    listed = good(await bob.client.list_public_rooms(), PublicRoomsResponse).public_rooms
    check(room in {entry.room_id for entry in listed}, "the room isn't listed")
    found = await carol.client.get_room_directory(search_query="books FOR")
    same([entry.room_id for entry in found.chunk], [room], "the rooms for a word of the topic")
    same((await carol.client.get_room_directory(search_query="nothing")).chunk, [], "the rooms for nothing")
    second = await carol.client.create_room(
        visibility=RoomDirectoryVisibility.PUBLIC, preset=RoomCreatePreset.PUBLIC, name="Club")
    page = await carol.ask("GET", f"{CLIENT}/publicRooms", limit=1)
    rest = await carol.ask("POST", f"{CLIENT}/publicRooms", {"limit": 10, "since": page["next_batch"]})
    seen = [entry["room_id"] for entry in page["chunk"] + rest["chunk"]]
    check({room, second} <= set(seen) and len(seen) == len(set(seen)), f"the pages show {seen}")
    await alice.ask("PUT", f"{CLIENT}/directory/list/room/{quoted(room)}", {"visibility": "private"})
    listed = good(await bob.client.list_public_rooms(), PublicRoomsResponse).public_rooms
    check(room not in {entry.room_id for entry in listed}, "the room is still listed")
    summary = await bob.ask("GET", f"{CLIENT_V1}/room_summary/%23library:localhost")
    same((summary["name"], summary["num_joined_members"], summary["membership"]), ("Library", 2, "leave"), "the summary")


async def upgrade(people):
    alice, bob = people.alice, people.bob
    old = good(
        await alice.client.room_create(
            preset=nio.RoomPreset.public_chat, room_version="10", name="Old", alias="moving", topic="Boxes",
            power_level_override={"users_default": 5}), nio.RoomCreateResponse).room_id
    good(await bob.client.join(old), nio.JoinResponse)
    await bob.ask("PUT", f"{CLIENT}/user/{bob.user}/rooms/{quoted(old)}/tags/u.home", {"order": 0.5})
    await bob.ask("POST", f"{CLIENT}/rooms/{quoted(old)}/upgrade", {"new_version": "11"}, status=403, code="M_FORBIDDEN")
    new = (await alice.ask("POST", f"{CLIENT}/rooms/{quoted(old)}/upgrade", {"new_version": "11"}))["replacement_room"]
    same((await content(bob, old, "m.room.tombstone"))["replacement_room"], new, "where the tombstone points")
    same((await content(alice, new, "m.room.create"))["predecessor"]["room_id"], old, "where the new room comes from")
    same((await content(alice, new, "m.room.topic"))["topic"], "Boxes", "the topic that moved")
    same(await bob.client.room_resolve_alias("#moving:localhost"), bob_resolves(new), "where the alias points")
    good(await bob.client.join(new), nio.JoinResponse)
    tags = await bob.ask("GET", f"{CLIENT}/user/{bob.user}/rooms/{quoted(new)}/tags")
    same(tags["tags"], {"u.home": {"order": 0.5}}, "bob's tags of the new room")


class bob_resolves:
    """Equal to the answer that names a room."""

    def __init__(self, room):
        self.room = room

    def __eq__(self, response):
        return isinstance(response, nio.RoomResolveAliasResponse) and response.room_id == self.room


async def spaces(people):
    alice, bob = people.alice, people.bob
    space = good(
        await alice.client.room_create(space=True, name="House", preset=nio.RoomPreset.public_chat),
        nio.RoomCreateResponse).room_id
    rooms = []
    for name, preset in (("Kitchen", nio.RoomPreset.public_chat), ("Safe", nio.RoomPreset.private_chat)):
        rooms.append(good(await alice.client.room_create(name=name, preset=preset), nio.RoomCreateResponse).room_id)
        good(await alice.client.room_put_state(space, "m.space.child", {"via": ["localhost"], "order": name}, rooms[-1]),
             nio.RoomPutStateResponse)
    mine = good(await alice.client.space_get_hierarchy(space), nio.SpaceGetHierarchyResponse).rooms
    same([room["room_id"] for room in mine], [space, *rooms], "the house to alice")
    his = good(await bob.client.space_get_hierarchy(space), nio.SpaceGetHierarchyResponse).rooms
    same([room["room_id"] for room in his], [space, rooms[0]], "the house to bob")
    page = good(await bob.client.space_get_hierarchy(space, limit=1), nio.SpaceGetHierarchyResponse)
    rest = good(await bob.client.space_get_hierarchy(space, from_page=page.next_batch, limit=1), nio.SpaceGetHierarchyResponse)
    same([room["name"] for room in page.rooms + rest.rooms], ["House", "Kitchen"], "the house page by page")


async def looking_in(people):
    alice, bob = people.alice, people.bob
    room = good(
        await alice.client.room_create(
            preset=nio.RoomPreset.public_chat, name="Window", initial_state=[{
                "type": "m.room.history_visibility", "state_key": "",
                "content": {"history_visibility": "world_readable"}}]), nio.RoomCreateResponse).room_id
    await alice.say(room, "seen from outside")
    same(await bob.bodies(room), ["seen from outside"], "what bob sees through the window")
    copy = await bob.ask("GET", f"{CLIENT}/rooms/{quoted(room)}/initialSync", limit=5)
    check("membership" not in copy and copy["messages"]["chunk"], f"the copy of the room is {copy}")
    start = (await bob.ask("GET", f"{CLIENT}/events", room_id=room))["end"]
    await alice.say(room, "news")
    news = await bob.ask("GET", f"{CLIENT}/events", room_id=room, **{"from": start}, timeout=5000)
    same([event["content"].get("body") for event in news["chunk"]], ["news"], "what comes to who looks in")
