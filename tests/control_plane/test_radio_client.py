"""The profiler's client of MEC 012 against a real platform: values, cell changes, renewal, restarts, tokens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestServer

from mec_platform.control_plane.monitoring.radio_client import RadioClient, RadioClientSettings
from mec_platform.domain.credentials import Scope
from mec_platform.domain.locality import Locality
from mec_platform.domain.radio import CellChange, RadioMeasurement
from mec_platform.domain.subscriptions import Topic
from mec_platform.enablement_api.routes import make_enablement_app
from mec_platform.enablement_api.security.protection import Protection
from mec_platform.enablement_api.security.settings import SecuritySettings
from mec_platform.radio.network import RadioNetwork
from mec_platform.registry.clock import SystemClock
from mec_platform.registry.host import HostRegistry
from mec_platform.registry.registry import Registry
from mec_platform.registry.sqlite.event_log import SqliteEventLog
from tests.radio.reporting import LTE, B, measured, ue

CAR = ue("car")
QUICK = RadioClientSettings(first_delay_s=0.01, longest_delay_s=0.05)


class Served:
    """One life of a platform at a port that stays."""

    def __init__(self, host: HostRegistry, network: RadioNetwork, url: str) -> None:
        self.host, self.network, self.url = host, network, url

    def take(self, *args: Any, **kwargs: Any) -> None:
        self.network.take(measured(*args, of=CAR, **kwargs), "a test")

    def topics(self) -> dict[str, Topic]:
        return {each: found.topic for each, found in self.host.registry.state.subscriptions.items()}


async def until(holds: Callable[[], bool]) -> None:
    """Returns once it is so."""
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


@asynccontextmanager
async def platform(state: Path | str = ":memory:", port: int = 0, authenticate: bool = False) -> AsyncIterator[Served]:
    log = await SqliteEventLog.open(state)
    host = HostRegistry(Registry(log), locality=Locality(mec_host="host-1"))
    await host.start()
    network = RadioNetwork(host.registry.clock)
    protection = Protection(host.registry, host.credentials, SecuritySettings(authenticate=authenticate))
    await protection.start()
    server = TestServer(make_enablement_app(host, protection=protection, radio=network), port=port or None)
    async with server:
        yield Served(host, network, str(server.make_url("/")))
    await protection.stop()
    await host.stop()
    await log.close()


class Heard:
    """What a client has told, one after the other."""

    def __init__(self) -> None:
        self.measurements: asyncio.Queue[RadioMeasurement] = asyncio.Queue()
        self.changes: asyncio.Queue[CellChange] = asyncio.Queue()


@asynccontextmanager
async def listening(served: Served, settings: RadioClientSettings = QUICK, **more: Any) -> AsyncIterator[Heard]:
    heard = Heard()
    client = RadioClient(
        served.url,
        heard.measurements.put_nowait,
        on_cell_change=heard.changes.put_nowait,
        clock=SystemClock(),
        die=Random(1),
        settings=settings,
        **more,
    )
    await client.start()
    await until(lambda: client.connected == 3)
    yield heard
    await client.stop()


async def test_measurements_and_cell_changes_arrive_as_values_of_this_clock():
    async with platform() as served, listening(served) as heard:
        before_s = SystemClock().monotonic_s()
        served.take(-77, 23, round_trip_s=0.0205)
        assert_same(await heard.measurements.get(), "5C4225714", -76.5, 23.25, 0.0205, before_s)
        served.take(-95, 9, cell=B)
        change = await heard.changes.get()
        assert (change.ue, change.source, change.cell) == ("car", "5C4225714", "5C422503D")
        assert_same(await heard.measurements.get(), "5C422503D", -94.5, 9.25, None, before_s)
        served.take(-100, -1, rsrq_db=-12, cell=LTE)
        assert_same(await heard.measurements.get(), "5C42250", -99.5, -0.75, None, before_s)


def assert_same(measurement, cell, rsrp_dbm, sinr_db, round_trip_s, since_s) -> None:
    assert (measurement.ue, measurement.cell) == ("car", cell)
    assert (measurement.rsrp_dbm, measurement.sinr_db) == (rsrp_dbm, sinr_db)
    assert measurement.round_trip_s == (None if round_trip_s is None else pytest.approx(round_trip_s))
    # The two clocks of this machine are read one after the other.
    assert since_s - 0.1 <= measurement.at_s <= SystemClock().monotonic_s()


async def test_a_measurement_without_sinr_is_passed_over():
    async with platform() as served, listening(served) as heard:
        served.take(-77, None)
        served.take(-78, 20, cell=B)
        assert (await heard.measurements.get()).cell == "5C422503D"


async def test_who_stops_leaves_no_subscription_behind():
    async with platform() as served:
        async with listening(served):
            assert set(served.topics().values()) == {Topic.CELL_CHANGE, Topic.MEASUREMENT, Topic.NR_MEASUREMENT}
        assert served.topics() == {}


async def test_subscriptions_are_renewed_before_they_end():
    async with platform() as served, listening(served, RadioClientSettings(life_s=0.9)) as heard:
        made = served.topics()
        ends = {each: served.host.registry.state.subscriptions[each].expiry.deadline_unix_ns for each in made}

        def renewed() -> bool:
            state = served.host.registry.state.subscriptions
            return all(each in state and state[each].expiry.deadline_unix_ns > ends[each] + 10**9 // 2 for each in made)

        await until(renewed)
        served.take(-77, 23)
        await heard.measurements.get()
        assert served.topics() == made


async def test_a_restarted_platform_is_found_again_with_the_same_subscriptions(tmp_path):
    state = tmp_path / "state.sqlite"
    async with platform(state) as first:
        port = int(first.url.rstrip("/").rpartition(":")[2])
        listener = listening(first)
        heard = await listener.__aenter__()
        first.take(-77, 23)
        await heard.measurements.get()
        made = first.topics()
    async with platform(state, port) as second:
        assert second.topics() == made
        second.take(-88, 11)
        assert (await heard.measurements.get()).rsrp_dbm == -87.5
        await listener.__aexit__(None, None, None)
        assert second.topics() == {}


async def test_a_platform_that_has_forgotten_everything_is_subscribed_to_anew():
    async with platform() as first:
        port = int(first.url.rstrip("/").rpartition(":")[2])
        listener = listening(first)
        heard = await listener.__aenter__()
    async with platform(port=port) as second:
        await until(lambda: len(second.topics()) == 3)
        second.take(-88, 11)
        assert (await heard.measurements.get()).rsrp_dbm == -87.5
        await listener.__aexit__(None, None, None)


async def test_a_token_goes_with_every_request():
    async with platform(authenticate=True) as served:
        _, secret = await served.host.credentials.create([Scope.RADIO_INFORMATION], "profiler")
        asked = 0

        async def token() -> str:
            nonlocal asked
            asked += 1
            form = {"grant_type": "client_credentials", "client_id": "profiler", "client_secret": secret}
            async with aiohttp.ClientSession() as session, session.post(f"{served.url}oauth2/token", data=form) as got:
                return str((await got.json())["access_token"])

        async with listening(served, tokens=token) as heard:
            served.take(-77, 23)
            assert (await heard.measurements.get()).ue == "car"
            assert {each.owner for each in served.host.registry.state.subscriptions.values()} == {"profiler"}
        assert served.topics() == {}
        assert asked == 9
