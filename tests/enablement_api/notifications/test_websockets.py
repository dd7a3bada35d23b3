"""Notifications over WebSockets: who may connect, what comes first, and when a notification counts as delivered."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import WSCloseCode, WSMsgType

from tests.enablement_api.notifications.receiver import Receiver

SERVICES = "/mec_service_mgmt/v1"


@pytest.fixture
def wish() -> dict[str, Any]:
    """A subscription over a WebSocket, as an application posts it."""
    return {
        "subscriptionType": "SerAvailabilityNotificationSubscription",
        "websockNotifConfig": {"requestWebsocketUri": True},
    }


async def subscribe(client, app_id, wish) -> dict[str, Any]:
    response = await client.post(f"{SERVICES}/applications/{app_id}/subscriptions", json=wish)
    assert response.status == 201
    return await response.json()


@pytest.fixture
async def path(client, app_id, wish) -> str:
    """Where the WebSocket of a new subscription is."""
    return urlsplit((await subscribe(client, app_id, wish))["websockNotifConfig"]["websocketUri"]).path


async def name_in(socket) -> str:
    (reference,) = (await socket.receive_json())["serviceReferences"]
    return reference["serName"]


async def test_frames_are_notifications(client, app_id, wish, post_service):
    answer = await subscribe(client, app_id, wish)
    async with client.session.ws_connect(answer["websockNotifConfig"]["websocketUri"]) as socket:
        service = await post_service("greeting")
        message = await socket.receive_json()
    assert message["notificationType"] == "SerAvailabilityNotification"
    assert message["serviceReferences"][0]["serInstanceId"] == service["serInstanceId"]
    assert message["_links"]["subscription"]["href"] == answer["_links"]["self"]["href"]


async def test_what_waited_while_nobody_was_connected_comes_first(client, path, post_service):
    await post_service("a")
    await post_service("b")
    async with client.ws_connect(path) as socket:
        assert [await name_in(socket) for _ in range(2)] == ["a", "b"]
        await post_service("c")
        assert await name_in(socket) == "c"


async def test_a_requested_test_notification_comes_before_everything(client, app_id, wish):
    answer = await subscribe(client, app_id, wish | {"requestTestNotification": True})
    async with client.ws_connect(urlsplit(answer["websockNotifConfig"]["websocketUri"]).path) as socket:
        assert (await socket.receive_json())["notificationType"] == "TestNotification"


async def test_a_notification_without_a_pong_is_not_delivered(client, path, post_service):
    await post_service("a")
    async with client.ws_connect(path, autoping=False) as deaf:
        assert await name_in(deaf) == "a"
        assert (await deaf.receive()).type is WSMsgType.PING
    async with client.ws_connect(path) as socket:
        assert await name_in(socket) == "a"


async def test_a_newer_connection_replaces_the_older(client, path, post_service):
    async with client.ws_connect(path) as older, client.ws_connect(path) as newer:
        assert (await older.receive()).type is WSMsgType.CLOSE
        assert older.close_code == WSCloseCode.POLICY_VIOLATION
        await post_service("a")
        assert await name_in(newer) == "a"


async def test_what_the_older_connection_did_not_confirm_comes_on_the_newer(client, path, post_service):
    async with client.ws_connect(path, autoping=False) as older:
        await post_service("a")
        assert await name_in(older) == "a"
        async with client.ws_connect(path) as newer:
            assert await name_in(newer) == "a"


async def test_the_connection_ends_with_its_subscription(client, path):
    async with client.ws_connect(path) as socket:
        assert (await client.delete(path.removeprefix("/websockets"))).status == 204
        assert (await socket.receive()).type is WSMsgType.CLOSE
    assert (await client.get(path)).status == 404


async def test_frames_of_the_subscriber_are_ignored_unless_they_are_large(client, path, post_service):
    async with client.ws_connect(path) as socket:
        await socket.send_str("hello")
        await socket.ping(b"are you there")
        await post_service("a")
        assert await name_in(socket) == "a"
        await socket.send_bytes(b"x" * 5000)
        assert (await socket.receive()).type is WSMsgType.CLOSE
        assert socket.close_code == WSCloseCode.MESSAGE_TOO_BIG


async def test_only_a_websocket_is_answered(client, path):
    response = await client.get(path)
    assert response.status == 400
    assert response.content_type == "application/problem+json"


async def test_a_subscription_with_a_callback_has_no_websocket(client, app_id, receiver: Receiver, wish):
    answer = await subscribe(
        client, app_id, {"subscriptionType": wish["subscriptionType"], "callbackReference": receiver.url}
    )
    path = urlsplit(answer["_links"]["self"]["href"]).path
    assert (await client.get(f"/websockets{path}")).status == 409


async def test_pages_of_other_sites_may_not_connect(client, path):
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    response = await client.get(path, headers=upgrade | {"Origin": "https://evil.example"})
    assert response.status == 403
    async with client.ws_connect(path, origin=str(client.make_url("/")).rstrip("/")):
        pass


async def test_another_applications_websocket_is_not_found(client, path, app_id):
    other = await (await client.post("/mec_app_support/v2/registrations", json={"appName": "other"})).json()
    assert (await client.get(path.replace(app_id, other["appInstanceId"]))).status == 404


async def test_how_long_a_websocket_was_open_is_no_time_to_answer(client, path):
    async with client.ws_connect(path) as socket:
        await client.delete(path.removeprefix("/websockets"))
        await socket.receive()
    lines = (await (await client.get("/metrics")).text()).splitlines()
    counts = [each for each in lines if each.startswith("mec_http_request_seconds_count") and "/websockets/" in each]
    assert all(each.endswith(" 0.0") for each in counts)
