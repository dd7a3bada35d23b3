"""MEC 012 on a platform that authenticates: the scope, whose subscriptions are whose, and what ends with a client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
from aiohttp.test_utils import TestClient, TestServer

from mec_platform.domain.applications import AppDescription
from mec_platform.domain.credentials import Scope
from mec_platform.domain.quotas import Quotas
from mec_platform.enablement_api.notifications.targets import DEVELOPMENT_NETWORKS, CallbackPolicy
from mec_platform.enablement_api.routes import make_enablement_app
from mec_platform.enablement_api.security.protection import Protection
from mec_platform.enablement_api.security.settings import SecuritySettings
from mec_platform.radio.network import RadioNetwork
from mec_platform.registry.errors import UnknownSubscription
from mec_platform.registry.host import HostRegistry
from tests.enablement_api.radio.conftest import SUBSCRIPTIONS
from tests.enablement_api.radio.wishes import wish

WISH = wish("CellChange") | {"callbackReference": "http://127.0.0.1:9000/"}


@pytest.fixture
async def client(host: HostRegistry, network: RadioNetwork) -> AsyncIterator[TestClient]:
    protection = Protection(host.registry, host.credentials, SecuritySettings(authenticate=True))
    await protection.start()
    app = make_enablement_app(
        host, protection=protection, callbacks=CallbackPolicy(DEVELOPMENT_NETWORKS), radio=network
    )
    async with TestClient(TestServer(app)) as client:
        yield client
    await protection.stop()


async def token(client: TestClient, host: HostRegistry, name: str, *scopes: Scope) -> dict[str, str]:
    _, secret = await host.credentials.create(scopes or (Scope.RADIO_INFORMATION,), name)
    form = {"grant_type": "client_credentials", "client_id": name, "client_secret": secret}
    answer = await (await client.post("/oauth2/token", data=form)).json()
    return {"Authorization": f"Bearer {answer['access_token']}"}


async def test_a_client_sees_and_ends_what_is_its_own_and_an_administrator_everything(client, host):
    mine, yours = [await token(client, host, name) for name in ("mine", "yours")]
    operator = await token(client, host, "operator", Scope.RADIO_INFORMATION, Scope.ADMIN)
    made = await (await client.post(SUBSCRIPTIONS, json=WISH, headers=mine)).json()
    path = urlsplit(made["_links"]["self"]["href"]).path
    for headers, number in ((mine, 1), (yours, 0)):
        listed = await (await client.get(SUBSCRIPTIONS, headers=headers)).json()
        assert len(listed["_links"]["subscription"]) == number
    assert (await client.get(path, headers=yours)).status == 404
    assert (await client.put(path, json=WISH, headers=yours)).status == 404
    assert (await client.delete(path, headers=yours)).status == 404
    assert (await client.put(path, json=WISH, headers=operator)).status == 200
    assert (await client.get(path, headers=mine)).status == 200
    assert (await client.delete(path, headers=mine)).status == 204


async def test_the_scope_is_that_of_radio_information(client, host):
    other = await token(client, host, "other", Scope.SERVICE_MANAGEMENT)
    assert (await client.get("/rni/v2/queries/rab_info")).status == 401
    assert (await client.get("/rni/v2/queries/rab_info", headers=other)).status == 403
    assert (await client.get("/admin/v1/radio", headers=await token(client, host, "mine"))).status == 403


async def test_subscriptions_end_with_the_clients_credentials(client, host):
    mine = await token(client, host, "mine")
    made = await (await client.post(SUBSCRIPTIONS, json=WISH, headers=mine)).json()
    subscription_id = made["_links"]["self"]["href"].rpartition("/")[2]
    assert host.client_subscriptions.get(None, subscription_id).owner == "mine"
    await host.credentials.remove("mine")
    with pytest.raises(UnknownSubscription):
        host.client_subscriptions.get(None, subscription_id)


async def test_an_application_instance_of_another_client_is_not_to_be_named(client, host):
    mine = await token(client, host, "mine")
    for owner, status in (("yours", 403), ("mine", 201)):
        app = await host.applications.register(AppDescription(name="greeter"), owner=owner)
        named = wish("CellChange", appInstanceId=app.app_instance_id) | {"callbackReference": "http://127.0.0.1:9000/"}
        assert (await client.post(SUBSCRIPTIONS, json=named, headers=mine)).status == status


async def test_a_client_has_so_many_subscriptions_and_no_more(client, host, monkeypatch):
    mine = await token(client, host, "mine")
    monkeypatch.setattr(host.client_subscriptions, "_quotas", Quotas(subscriptions_per_app=1))
    assert (await client.post(SUBSCRIPTIONS, json=WISH, headers=mine)).status == 201
    response = await client.post(SUBSCRIPTIONS, json=WISH, headers=mine)
    assert response.status == 403
    assert "1 subscriptions" in (await response.json())["detail"]
