"""Notifications outlive the process that was to deliver them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp.test_utils import TestClient, TestServer

from mec_platform.domain.locality import Locality
from mec_platform.enablement_api.notifications.callbacks import ID_HEADER
from mec_platform.enablement_api.notifications.settings import DeliverySettings
from mec_platform.enablement_api.notifications.targets import DEVELOPMENT_NETWORKS, CallbackPolicy
from mec_platform.enablement_api.routes import make_enablement_app
from mec_platform.registry.host import HostRegistry
from mec_platform.registry.registry import Registry
from mec_platform.registry.sqlite.event_log import SqliteEventLog
from tests.enablement_api.notifications.receiver import serve_receiver

APPS = "/mec_app_support/v2"
SERVICES = "/mec_service_mgmt/v1"


@asynccontextmanager
async def platform(state: Path) -> AsyncIterator[TestClient]:
    """One life of a platform over this file."""
    log = await SqliteEventLog.open(state)
    host = HostRegistry(Registry(log), locality=Locality(mec_host="host-1"))
    await host.start()
    app = make_enablement_app(
        host, callbacks=CallbackPolicy(DEVELOPMENT_NETWORKS), delivery=DeliverySettings(attempt_timeout_s=30)
    )
    async with TestClient(TestServer(app)) as client:
        yield client
    await host.stop()
    await log.close()


async def test_a_restart_delivers_what_waited_and_repeats_only_what_was_on_its_way(tmp_path, offer):
    state = tmp_path / "state.sqlite"
    async with serve_receiver() as receiver:
        async with platform(state) as client:
            registered = await (await client.post(f"{APPS}/registrations", json={"appName": "greeter"})).json()
            own = f"{SERVICES}/applications/{registered['appInstanceId']}"
            subscription = {
                "subscriptionType": "SerAvailabilityNotificationSubscription",
                "callbackReference": receiver.url,
            }
            assert (await client.post(f"{own}/subscriptions", json=subscription)).status == 201
            await client.post(f"{own}/services", json=offer | {"serName": "delivered"})
            assert await receiver.names(1) == ["delivered"]
            receiver.open.clear()
            for name in ("on its way", "waiting"):
                await client.post(f"{own}/services", json=offer | {"serName": name})
            interrupted = await receiver.next()
            assert interrupted.services == ["on its way"]
        receiver.open.set()
        async with platform(state) as client:
            repeated = await receiver.next()
            assert repeated.services == ["on its way"]
            assert repeated.headers[ID_HEADER] == interrupted.headers[ID_HEADER]
            assert repeated.body == interrupted.body
            assert await receiver.names(1) == ["waiting"]
            await client.post(f"{own}/services", json=offer | {"serName": "new"})
            assert await receiver.names(1) == ["new"]
        async with platform(state) as client:
            await client.post(f"{own}/services", json=offer | {"serName": "newest"})
            assert await receiver.names(1) == ["newest"]
            assert not receiver.has_more
