"""Dead letters as an operator sees them: over REST and with `mec notifications`."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web
from click.testing import CliRunner

from mec_apps.cli.main import cli

SERVICES = "/mec_service_mgmt/v1"


@pytest.fixture
async def buried(client, app_id, subscription, receiver, post_service) -> str:
    """The id of a subscription with two dead letters, behind which a third notification was delivered."""
    response = await client.post(f"{SERVICES}/applications/{app_id}/subscriptions", json=subscription)
    receiver.answers = [web.Response(status=400), web.Response(status=410)]
    for name in ("a", "b", "c"):
        await post_service(name)
    assert await receiver.names(3) == ["a", "b", "c"]
    return response.headers["Location"].rpartition("/")[2]


async def test_dead_letters_say_to_whom_and_why_but_not_the_callbacks_path(client, app_id, buried, receiver):
    first, second = await (await client.get("/admin/v1/dead_letters")).json()
    assert first["subscriptionId"] == buried
    assert first["appInstanceId"] == app_id
    assert first["subscriptionType"] == "SerAvailabilityNotificationSubscription"
    assert first["notificationId"].startswith(f"{buried}:")
    assert first["reason"] == "the target refuses notifications (status 400)"
    assert first["notification"]["serviceReferences"][0]["serName"] == "a"
    assert first["target"] == receiver.url.removesuffix("/callback")
    assert "gone for good" in second["reason"]


async def test_dead_letters_of_one_subscription_may_be_asked_for(client, buried):
    letters = await (await client.get("/admin/v1/dead_letters", params={"subscriptionId": buried})).json()
    assert len(letters) == 2
    assert await (await client.get("/admin/v1/dead_letters", params={"subscriptionId": "other"})).json() == []


async def test_what_is_retried_comes_in_its_old_order_and_under_its_old_ids(client, buried, receiver):
    ids = [each["notificationId"] for each in await (await client.get("/admin/v1/dead_letters")).json()]
    assert (await client.post(f"/admin/v1/subscriptions/{buried}/retry")).status == 204
    revived = [await receiver.next(), await receiver.next()]
    assert [name for each in revived for name in each.services] == ["a", "b"]
    assert [each.headers["X-MEC-Notification-Id"] for each in revived] == ids
    assert await (await client.get("/admin/v1/dead_letters")).json() == []


async def test_what_is_dropped_is_gone(client, buried, receiver):
    assert (await client.delete(f"/admin/v1/subscriptions/{buried}/dead_letters")).status == 204
    assert await (await client.get("/admin/v1/dead_letters")).json() == []
    assert (await client.post(f"/admin/v1/subscriptions/{buried}/retry")).status == 204
    assert not receiver.has_more


@pytest.mark.parametrize(("method", "what"), [("POST", "retry"), ("DELETE", "dead_letters")])
async def test_an_unknown_subscription_is_not_found(client, method, what):
    assert (await client.request(method, f"/admin/v1/subscriptions/nobody/{what}")).status == 404


async def mec(client, *arguments: str) -> str:
    """What a command prints. In a thread: it runs an event loop of its own."""
    result = await asyncio.to_thread(
        CliRunner().invoke, cli, [*arguments, "--platform", str(client.make_url("/"))], env={"COLUMNS": "200"}
    )
    assert result.exit_code == 0, result.output
    return result.output


async def test_the_command_lists_retries_and_drops(client, buried, receiver):
    listed = await mec(client, "notifications", "list")
    assert listed.count(buried) == 2
    assert "gone for good" in listed
    receiver.answers = [web.Response(status=410), web.Response(status=410)]
    assert buried in await mec(client, "notifications", "retry", buried)
    assert await receiver.names(2) == ["a", "b"]
    assert buried in await mec(client, "notifications", "drop", buried)
    assert "no dead letters" in await mec(client, "notifications", "list")
