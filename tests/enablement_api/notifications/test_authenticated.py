"""Notifications of a platform that authenticates its clients: who may connect, and what a receiver can believe."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import WSServerHandshakeError
from aiohttp.test_utils import TestClient, TestServer
from joserfc.jwk import KeySet

from mec_apps.examples.receiver import verify_notification
from mec_apps.sdk import ClientCredentials, MecApplication
from mec_platform.domain.credentials import Scope
from mec_platform.enablement_api.notifications.callbacks import ID_HEADER
from mec_platform.enablement_api.notifications.targets import DEVELOPMENT_NETWORKS, CallbackPolicy
from mec_platform.enablement_api.routes import make_enablement_app
from mec_platform.enablement_api.security.protection import Protection
from mec_platform.enablement_api.security.settings import SecuritySettings
from mec_platform.registry.host import HostRegistry

SERVICES = "/mec_service_mgmt/v1"
APPS = "/mec_app_support/v2"
MP1 = (Scope.APP_SUPPORT, Scope.SERVICE_MANAGEMENT)


@pytest.fixture
async def client(host: HostRegistry) -> AsyncIterator[TestClient]:
    protection = Protection(host.registry, host.credentials, SecuritySettings(authenticate=True))
    await protection.start()
    app = make_enablement_app(host, protection=protection, callbacks=CallbackPolicy(DEVELOPMENT_NETWORKS))
    async with TestClient(TestServer(app)) as client:
        yield client
    await protection.stop()


async def token(client: TestClient, host: HostRegistry, *scopes: Scope) -> dict[str, str]:
    """Headers with a token of a new client."""
    made, secret = await host.credentials.create(scopes or MP1)
    form = {"grant_type": "client_credentials", "client_id": made.client_id, "client_secret": secret}
    answer = await (await client.post("/oauth2/token", data=form)).json()
    return {"Authorization": f"Bearer {answer['access_token']}"}


@pytest.fixture
async def own(client: TestClient, host: HostRegistry) -> dict[str, str]:
    return await token(client, host)


@pytest.fixture
async def subscriptions(client: TestClient, own: dict[str, str]) -> str:
    """Where an application instance of `own` subscribes."""
    app = await (await client.post(f"{APPS}/registrations", json={"appName": "greeter"}, headers=own)).json()
    return f"{SERVICES}/applications/{app['appInstanceId']}/subscriptions"


async def test_a_receiver_can_believe_what_is_signed(client, own, subscriptions, receiver):
    wish: dict[str, Any] = {
        "subscriptionType": "SerAvailabilityNotificationSubscription",
        "callbackReference": receiver.url,
        "requestTestNotification": True,
    }
    assert (await client.post(subscriptions, json=wish, headers=own)).status == 201
    received = await receiver.next()
    keys = KeySet.import_key_set(await (await client.get("/oauth2/jwks")).json())
    # The platform's clock stands still in these tests.
    signed_at_s = 1_700_000_000
    assert verify_notification(received.headers, received.body, keys, signed_at_s) == received.headers[ID_HEADER]


async def test_a_websocket_is_for_the_owner_of_its_subscription(client, host, own, subscriptions):
    wish = {
        "subscriptionType": "SerAvailabilityNotificationSubscription",
        "websockNotifConfig": {"requestWebsocketUri": True},
        "requestTestNotification": True,
    }
    answer = await (await client.post(subscriptions, json=wish, headers=own)).json()
    path = urlsplit(answer["websockNotifConfig"]["websocketUri"]).path
    for headers, status in (
        ({}, 401),
        (await token(client, host), 403),
        (await token(client, host, Scope.APP_SUPPORT), 403),
    ):
        with pytest.raises(WSServerHandshakeError) as refused:
            await client.ws_connect(path, headers=headers)
        assert refused.value.status == status
    async with client.ws_connect(path, headers=own) as socket:
        assert (await socket.receive_json())["notificationType"] == "TestNotification"


async def test_dead_letters_are_for_administrators(client, host, own):
    assert (await client.get("/admin/v1/dead_letters", headers=own)).status == 403
    assert (await client.get("/admin/v1/dead_letters", headers=await token(client, host, Scope.ADMIN))).status == 200


async def test_the_sdk_watches_with_its_credentials(client, host):
    made, secret = await host.credentials.create(MP1)
    credentials = ClientCredentials(made.client_id, secret)
    async with (
        MecApplication(str(client.make_url("/")), name="greeter", credentials=credentials) as app,
        app.watch(name="greeting") as changes,
    ):
        await app.offer_service("greeting", "http://127.0.0.1:9000/", version="1.0", liveness_s=None)
        assert (await anext(changes)).name == "greeting"
