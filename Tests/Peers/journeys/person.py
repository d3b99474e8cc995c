"""What is a person's own: profile, presence, account data, tags, push rules, filters, pushers, the directory, media."""

import io
import struct
import zlib

import nio
from mautrix.types import EventType, PresenceState
from people import CLIENT, check, good, quoted, same


def picture(width, height):
    """A PNG with a colour gradient."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(
        b"\0" + bytes(value for x in range(width) for value in (x % 256, y % 256, 90)) for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


async def journey(people):
    await media(people)
    await profile(people)
    await presence(people)
    await data(people)
    await rules(people)
    await directory(people)


async def media(people):
    alice, bob, carol = people.alice, people.bob, people.carol
    image = picture(320, 240)
    response, _ = await alice.client.upload(io.BytesIO(image), "image/png", "garden.png", filesize=len(image))
    uri = good(response, nio.UploadResponse).content_uri
    server, media_id = uri.removeprefix("mxc://").split("/")
    download = good(await bob.client.download(mxc=uri), nio.DownloadResponse)
    same((download.body, download.content_type, download.filename), (image, "image/png", "garden.png"), "the picture")
    small = good(
        await bob.client.thumbnail(server, media_id, 32, 32, nio.ResizingMethod.crop), nio.ThumbnailResponse)
    check(0 < len(small.body) < len(image) and small.content_type in ("image/png", "image/jpeg", "image/webp"),
          f"the thumbnail is a {small.content_type} of {len(small.body)} bytes")
    same(await carol.client.download_media(uri), image, "the picture to carol")
    check(len(await carol.client.download_thumbnail(uri, width=96, height=96)) > 0, "carol gets no thumbnail")
    later = await carol.client.create_mxc()
    # mautrix wants to read from the answer what it has just said in the request.
    path = f"/_matrix/media/v3/upload/{later.content_uri.removeprefix('mxc://')}"
    async with people.session.put(
            carol.url + path, data=b"a note",
            headers={"Authorization": f"Bearer {carol.token}", "Content-Type": "text/plain"}) as answer:
        same(answer.status, 200, "uploading later")
    same(await carol.client.download_media(later.content_uri), b"a note", "what was uploaded later")
    check(good(await alice.client.content_repository_config(), nio.ContentRepositoryConfigResponse).upload_size > 0,
          "nothing may be uploaded")
    await bob.ask("GET", f"/_matrix/client/v1/media/download/localhost/{media_id}", token=None, status=401)
    await bob.ask("GET", "/_matrix/client/v1/media/download/localhost/nothing", status=404, code="M_NOT_FOUND")
    people.picture = uri


async def profile(people):
    alice, bob, carol = people.alice, people.bob, people.carol
    good(await alice.client.set_displayname("Alice in the garden"), nio.ProfileSetDisplayNameResponse)
    good(await alice.client.set_avatar(people.picture), nio.ProfileSetAvatarResponse)
    seen = good(await bob.client.get_profile("@alice:localhost"), nio.ProfileGetResponse)
    same((seen.displayname, seen.avatar_url), ("Alice in the garden", people.picture), "alice's profile")
    await carol.client.set_displayname("Carol")
    same(await carol.client.get_displayname("@alice:localhost"), "Alice in the garden", "alice's name to carol")
    zone = f"{CLIENT}/profile/{quoted(alice.user)}/m.tz"
    await alice.ask("PUT", zone, {"m.tz": "Europe/Berlin"})
    same(await bob.ask("GET", zone), {"m.tz": "Europe/Berlin"}, "alice's time zone")
    await bob.ask("PUT", zone, {"m.tz": "Asia/Tokyo"}, status=403, code="M_FORBIDDEN")
    await alice.ask("DELETE", zone)
    await bob.ask("GET", zone, status=404, code="M_NOT_FOUND")


async def presence(people):
    alice, bob, carol = people.alice, people.bob, people.carol
    room = await carol.client.create_room(invitees=["@bob:localhost"])
    good(await bob.client.join(room), nio.JoinResponse)
    good(await bob.client.set_presence("unavailable", "at lunch"), nio.PresenceSetResponse)
    seen = await carol.client.get_presence("@bob:localhost")
    same((seen.presence, seen.status_msg), (PresenceState.UNAVAILABLE, "at lunch"), "bob's presence")
    mine = good(await bob.client.get_presence("@bob:localhost"), nio.PresenceGetResponse)
    same(mine.status_msg, "at lunch", "bob's presence to himself")
    people.shared = room


async def data(people):
    bob, carol = people.bob, people.carol
    await carol.client.set_account_data("org.example.notes", {"a": 1})
    same(await carol.client.get_account_data("org.example.notes"), {"a": 1}, "carol's notes")
    await carol.client.set_account_data("org.example.notes", {"a": 2}, room_id=people.shared)
    same(await carol.client.get_account_data("org.example.notes", room_id=people.shared), {"a": 2}, "notes on a room")
    path = f"{CLIENT}/user/{quoted(carol.user)}/account_data/org.example.notes"
    await bob.ask("GET", path, status=403, code="M_FORBIDDEN")
    seen = await carol.ask("GET", f"{CLIENT}/sync")
    check({"type": "org.example.notes", "content": {"a": 1}} in seen["account_data"]["events"], "the notes aren't synced")
    await carol.client.set_room_tag(people.shared, "m.favourite", {"order": 0.25})
    same(set((await carol.client.get_room_tags(people.shared)).tags), {"m.favourite"}, "carol's tags")
    await carol.client.remove_room_tag(people.shared, "m.favourite")
    same((await carol.client.get_room_tags(people.shared)).tags, {}, "carol's tags afterwards")

    filter_id = good(
        await bob.client.upload_filter(room={"timeline": {"limit": 1}, "rooms": [people.shared]}),
        nio.UploadFilterResponse).filter_id
    stored = await bob.ask("GET", f"{CLIENT}/user/{quoted(bob.user)}/filter/{filter_id}")
    same(stored["room"]["timeline"]["limit"], 1, "bob's filter")
    for text in ("one", "two"):
        await bob.say(people.shared, text)
    joined = (await bob.ask("GET", f"{CLIENT}/sync", filter=filter_id))["rooms"]["join"]
    same(set(joined), {people.shared}, "the rooms of a filtered sync")
    timeline = joined[people.shared]["timeline"]
    same(([event["content"].get("body") for event in timeline["events"]], timeline["limited"]), (["two"], True),
         "the timeline of a filtered sync")
    # Who is ignored isn't heard.
    await carol.client.set_account_data("m.ignored_user_list", {"ignored_users": {"@bob:localhost": {}}})
    page = await carol.ask("GET", f"{CLIENT}/rooms/{quoted(people.shared)}/messages", dir="b", limit=50)
    check(not any(event["type"] == "m.room.message" for event in page["chunk"]), "carol hears whom she ignores")
    await carol.client.set_account_data("m.ignored_user_list", {"ignored_users": {}})


async def rules(people):
    alice, carol = people.alice, people.carol
    good(
        await alice.client.set_pushrule(
            "global", nio.PushRuleKind.content, "tea", actions=[nio.PushNotify(), nio.PushSetTweak("highlight", True)],
            pattern="tea"), nio.SetPushRuleResponse)
    good(await alice.client.enable_pushrule("global", nio.PushRuleKind.content, "tea", False), nio.EnablePushRuleResponse)
    base = f"{CLIENT}/pushrules/global/content/tea"
    same((await alice.ask("GET", f"{base}/enabled"))["enabled"], False, "whether the rule is on")
    good(await alice.client.set_pushrule_actions("global", nio.PushRuleKind.content, "tea", []),
         nio.SetPushRuleActionsResponse)
    same((await alice.ask("GET", f"{base}/actions"))["actions"], [], "what the rule does")
    good(await alice.client.delete_pushrule("global", nio.PushRuleKind.content, "tea"), nio.DeletePushRuleResponse)
    await alice.ask("GET", base, status=404, code="M_NOT_FOUND")
    all_rules = await alice.ask("GET", f"{CLIENT}/pushrules/")
    check(any(rule["rule_id"] == ".m.rule.master" for rule in all_rules["global"]["override"]), "no master rule")
    pusher = {
        "kind": "http", "app_id": "org.example.app", "pushkey": "key", "app_display_name": "App",
        "device_display_name": "Phone", "lang": "en", "data": {"url": "https://push.example/_matrix/push/v1/notify"}}
    await carol.ask("POST", f"{CLIENT}/pushers/set", pusher)
    same((await carol.ask("GET", f"{CLIENT}/pushers"))["pushers"], [pusher], "carol's pushers")
    await carol.ask("POST", f"{CLIENT}/pushers/set", {"kind": None, "app_id": "org.example.app", "pushkey": "key"})
    same((await carol.ask("GET", f"{CLIENT}/pushers"))["pushers"], [], "carol's pushers afterwards")


async def directory(people):
    bob, carol = people.bob, people.carol
    found = await carol.client.search_users("alice")
    same([user.user_id for user in found.results], ["@alice:localhost"], "whom carol finds")
    found = await bob.ask("POST", f"{CLIENT}/user_directory/search", {"search_term": "garden"})
    same([user["user_id"] for user in found["results"]], ["@alice:localhost"], "whom bob finds by a word")
    same((await carol.client.search_users("nobody")).results, [], "who is nobody")
