"""Radio subscriptions and what waits for them outlive the platform; so does the end that they have set themselves."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp.test_utils import TestClient, TestServer

from mec_platform.domain.locality import Locality
from mec_platform.enablement_api.notifications.settings import DeliverySettings
from mec_platform.enablement_api.notifications.targets import DEVELOPMENT_NETWORKS, CallbackPolicy
from mec_platform.enablement_api.routes import make_enablement_app
from mec_platform.radio.network import RadioNetwork
from mec_platform.registry.host import HostRegistry
from mec_platform.registry.registry import Registry
from mec_platform.registry.sqlite.event_log import SqliteEventLog
from tests.enablement_api.notifications.receiver import serve_receiver
from tests.enablement_api.radio.conftest import SUBSCRIPTIONS
from tests.enablement_api.radio.wishes import wish
from tests.radio.reporting import A, B, measured


@asynccontextmanager
async def platform(state: Path) -> AsyncIterator[tuple[TestClient, RadioNetwork]]:
    """One life of a platform over this file, by the machine's clock."""
    log = await SqliteEventLog.open(state)
    host = HostRegistry(Registry(log), locality=Locality(mec_host="host-1"))
    await host.start()
    network = RadioNetwork(host.registry.clock)
    app = make_enablement_app(
        host,
        callbacks=CallbackPolicy(DEVELOPMENT_NETWORKS),
        delivery=DeliverySettings(attempt_timeout_s=30),
        radio=network,
    )
    async with TestClient(TestServer(app)) as client:
        yield client, network
    await host.stop()
    await log.close()


def hand_over(network: RadioNetwork, *cells) -> None:
    for cell in cells:
        network.take(measured(cell=cell), "a test")


async def test_a_restart_delivers_what_waited_and_goes_on(tmp_path):
    state = tmp_path / "state.sqlite"
    async with serve_receiver() as receiver:
        async with platform(state) as (client, network):
            wished = wish("CellChange") | {"callbackReference": receiver.url}
            assert (await client.post(SUBSCRIPTIONS, json=wished)).status == 201
            receiver.open.clear()
            hand_over(network, A, B, A)
            first = await receiver.next()
        receiver.open.set()
        async with platform(state) as (client, network):
            assert (await receiver.next()).body == first.body
            second = (await receiver.next()).message
            assert second["trgEcgi"][0]["cellId"] == A.cell_id
            hand_over(network, A, B)
            assert (await receiver.next()).message["trgEcgi"][0]["cellId"] == B.cell_id


async def test_an_end_that_comes_while_the_platform_is_down_has_come_when_it_is_up(tmp_path):
    state = tmp_path / "state.sqlite"
    async with serve_receiver() as receiver:
        ends_ns = time.time_ns() + 10**9
        async with platform(state) as (client, _):
            seconds, nano_seconds = divmod(ends_ns, 10**9)
            deadline = {"expiryDeadline": {"seconds": seconds, "nanoSeconds": nano_seconds}}
            response = await client.post(
                SUBSCRIPTIONS, json=wish("CellChange") | {"callbackReference": receiver.url} | deadline
            )
            path = urlsplit((await response.json())["_links"]["self"]["href"]).path
            message = (await receiver.next()).message
            assert message["notificationType"] == "ExpiryNotification"
        async with platform(state) as (client, _):
            while (await client.get(path)).status == 200:
                assert time.time_ns() < ends_ns + 20 * 10**9
