"""Registering, signing in and out, devices, passwords, and leaving for good."""

import nio
from people import CLIENT, CLIENT_V1, check, good, same

PASSWORD = "correct horse"
CHANGED = "battery staple"


async def arrive(people):
    alice, bob, carol = people.alice, people.bob, people.carol
    versions = await carol.client.versions()
    check({"v1.1", "v1.11", "v1.19"} <= {str(version) for version in versions.versions}, f"the versions are {versions}")
    flows = await alice.ask("GET", f"{CLIENT}/login", token=None)
    check({"type": "m.login.password"} in flows["flows"], "nobody can sign in with a password")
    await alice.ask("GET", f"{CLIENT}/register/available", token=None, username="alice")
    await alice.register(PASSWORD)
    await alice.ask("GET", f"{CLIENT}/register/available", token=None, username="alice", status=400, code="M_USER_IN_USE")
    await bob.register(PASSWORD)
    await carol.register(PASSWORD)
    whoami = good(await alice.client.whoami(), nio.WhoamiResponse)
    same(whoami.user_id, "@alice:localhost", "who alice is")
    same((await carol.client.whoami()).user_id, "@carol:localhost", "who carol is")
    await alice.ask("GET", f"{CLIENT}/account/whoami", token="nobody's", status=401, code="M_UNKNOWN_TOKEN")
    await alice.ask("GET", f"{CLIENT}/account/whoami", token=None, status=401, code="M_MISSING_TOKEN")
    capabilities = (await alice.ask("GET", f"{CLIENT}/capabilities"))["capabilities"]
    check(capabilities["m.room_versions"]["available"]["12"] == "stable", "there is no room version 12")
    await refresh(carol)
    await devices(alice)
    await password(bob)


async def refresh(carol):
    answer = await carol.ask(
        "POST", f"{CLIENT}/login",
        {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": "carol"}, "password": PASSWORD,
         "refresh_token": True, "initial_device_display_name": "brief"}, token=None)
    check(answer["expires_in_ms"] > 0, "the token doesn't expire")
    first = answer["refresh_token"]
    renewed = await carol.ask("POST", f"{CLIENT}/refresh", {"refresh_token": first}, token=None)
    await carol.ask("GET", f"{CLIENT}/account/whoami", token=renewed["access_token"])
    await carol.ask("GET", f"{CLIENT}/account/whoami", token=answer["access_token"], status=401, code="M_UNKNOWN_TOKEN")
    await carol.ask("POST", f"{CLIENT}/refresh", {"refresh_token": first}, token=None, status=401)


async def devices(alice):
    other = await alice.ask(
        "POST", f"{CLIENT}/login",
        {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": "@alice:localhost"},
         "password": PASSWORD, "device_id": "TABLET"}, token=None)
    # matrix-nio reads lists of devices only where each has a name and was seen.
    await alice.ask("GET", f"{CLIENT}/account/whoami", token=other["access_token"])
    good(await alice.client.update_device("TABLET", {"display_name": "Tablet"}), nio.UpdateDeviceResponse)
    listed = good(await alice.client.devices(), nio.DevicesResponse).devices
    same({device.display_name for device in listed if device.id == "TABLET"}, {"Tablet"}, "the tablet's name")
    same((await alice.ask("GET", f"{CLIENT}/devices/TABLET"))["device_id"], "TABLET", "the tablet")
    asked = await alice.client.delete_devices(["TABLET"])
    check(isinstance(asked, nio.DeleteDevicesAuthResponse), f"a device goes without the password: {asked!r}")
    auth = {"type": "m.login.password", "session": asked.session, "password": PASSWORD,
            "identifier": {"type": "m.id.user", "user": "alice"}}
    good(await alice.client.delete_devices(["TABLET"], auth), nio.DeleteDevicesResponse)
    await alice.ask("GET", f"{CLIENT}/account/whoami", token=other["access_token"], status=401, code="M_UNKNOWN_TOKEN")
    await alice.ask("GET", f"{CLIENT}/devices/TABLET", status=404, code="M_NOT_FOUND")
    # A device of her own lets another one in without the password being typed there.
    token = await alice.with_password("POST", f"{CLIENT_V1}/login/get_token", password=PASSWORD)
    body = {"type": "m.login.token", "token": token["login_token"]}
    third = await alice.ask("POST", f"{CLIENT}/login", body, token=None)
    await alice.ask("POST", f"{CLIENT}/login", body, token=None, status=403, code="M_FORBIDDEN")
    await alice.ask("POST", f"{CLIENT}/logout", token=third["access_token"])
    await alice.ask("GET", f"{CLIENT}/account/whoami", token=third["access_token"], status=401)


async def password(bob):
    other = await bob.ask(
        "POST", f"{CLIENT}/login",
        {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": "bob"}, "password": PASSWORD},
        token=None)
    # One is signed out by another password only if that is asked for.
    body = {"new_password": CHANGED, "logout_devices": False}
    await bob.with_password("POST", f"{CLIENT}/account/password", body, password=PASSWORD)
    await bob.ask("GET", f"{CLIENT}/account/whoami", token=other["access_token"])
    await bob.with_password("POST", f"{CLIENT}/account/password", {"new_password": PASSWORD}, password=CHANGED)
    await bob.ask("GET", f"{CLIENT}/account/whoami", token=other["access_token"], status=401)
    await bob.ask("GET", f"{CLIENT}/account/whoami")
    await bob.ask(
        "POST", f"{CLIENT}/login",
        {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": "bob"}, "password": CHANGED},
        token=None, status=403, code="M_FORBIDDEN")


async def leave(people):
    alice, bob, carol = people.alice, people.bob, people.carol
    room = await carol.client.create_room(name="Farewell", invitees=["@bob:localhost"])
    good(await bob.client.join(room), nio.JoinResponse)
    await bob.say(room, "I was here")
    ended = bob.token
    good(await bob.client.logout(), nio.LogoutResponse)
    await bob.ask("GET", f"{CLIENT}/account/whoami", token=ended, status=401, code="M_UNKNOWN_TOKEN")
    await bob.log_in(PASSWORD)
    await carol.client.logout_all()
    await carol.log_in(PASSWORD)
    await bob.with_password("POST", f"{CLIENT}/account/deactivate", {"erase": True}, password=PASSWORD)
    await bob.ask("GET", f"{CLIENT}/account/whoami", status=401)
    await bob.ask(
        "POST", f"{CLIENT}/login",
        {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": "bob"}, "password": PASSWORD},
        token=None, status=403)
    await alice.ask(
        "POST", f"{CLIENT}/register", {"username": "bob", "password": PASSWORD, "auth": {"type": "m.login.dummy"}},
        token=None, status=400, code="M_USER_IN_USE")
    members = await carol.client.get_joined_members(room)
    same(set(members), {"@carol:localhost"}, "who is left")
