"""The credentials that an operator gets with an instance are good for that instance and for nothing else."""

from __future__ import annotations

from mec_platform.domain.credentials import Scope
from tests.security.conftest import ADMIN, APPS, SERVICES


async def test_an_instance_uses_what_is_its_own(platform):
    operator = await platform.token(Scope.ADMIN)
    made = await platform.send(
        "POST", f"{ADMIN}/app_instances", operator, json={"appName": "x", "appInstanceId": "x-1"}
    )
    credentials = (await made.json())["credentials"]
    answer = await platform.ask_for_token(credentials["clientId"], credentials["clientSecret"])
    token = (await answer.json())["access_token"]
    ready = f"{APPS}/applications/x-1/confirm_ready"
    assert (await platform.send("POST", ready, token, json={"indication": "READY"})).status == 204
    registration = {"appName": "x", "isInsByMec": True, "appInstanceId": "x-1"}
    answer = await platform.send("POST", f"{APPS}/registrations", token, json=registration)
    assert (await answer.json())["appInstanceId"] == "x-1"
    assert (await platform.send("GET", f"{ADMIN}/app_instances", token)).status == 403


async def test_another_client_takes_no_instance_by_naming_it(platform):
    operator, stranger = await platform.token(Scope.ADMIN), await platform.token()
    await platform.send("POST", f"{ADMIN}/app_instances", operator, json={"appName": "x", "appInstanceId": "x-1"})
    registration = {"appName": "mine now", "isInsByMec": True, "appInstanceId": "x-1"}
    answer = await platform.send("POST", f"{APPS}/registrations", stranger, json=registration)
    assert answer.status == 201
    assert (await answer.json())["appInstanceId"] != "x-1"
    assert platform.host.applications.get("x-1").name == "x"


async def test_a_removed_instance_has_no_valid_tokens(platform):
    operator = await platform.token(Scope.ADMIN)
    made = await platform.send(
        "POST", f"{ADMIN}/app_instances", operator, json={"appName": "x", "appInstanceId": "x-1"}
    )
    credentials = (await made.json())["credentials"]
    answer = await platform.ask_for_token(credentials["clientId"], credentials["clientSecret"])
    token = (await answer.json())["access_token"]
    assert (await platform.send("GET", f"{SERVICES}/services", token)).status == 200
    assert (await platform.send("DELETE", f"{ADMIN}/app_instances/x-1?force=true", operator)).status == 204
    assert (await platform.send("GET", f"{SERVICES}/services", token)).status == 401
