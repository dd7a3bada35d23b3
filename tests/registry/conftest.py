"""A clock that stands still until a test moves it, and an etcd for all tests, each under a prefix of its own."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator

import pytest

from mec_platform.registry.etcd.settings import EtcdSettings
from tests.registry.etcd_cluster import ETCD, EtcdCluster, running_cluster


class ManualClock:
    """Implements `Clock`. Sleepers wake when `advance` has passed their time."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self._sleepers: list[tuple[float, asyncio.Event]] = []
        self._someone_sleeps = asyncio.Event()

    def monotonic_s(self) -> float:
        return self.now_s

    def unix_ns(self) -> int:
        return 1_700_000_000 * 10**9 + int(self.now_s * 10**9)

    async def sleep(self, seconds: float) -> None:
        wake = asyncio.Event()
        self._sleepers.append((self.now_s + seconds, wake))
        self._someone_sleeps.set()
        await wake.wait()

    def advance(self, seconds: float) -> None:
        self.now_s += seconds
        for due_s, wake in self._sleepers:
            if due_s <= self.now_s:
                wake.set()
        self._sleepers = [sleeper for sleeper in self._sleepers if not sleeper[1].is_set()]
        if not self._sleepers:
            self._someone_sleeps.clear()

    async def until_someone_sleeps(self) -> None:
        await self._someone_sleeps.wait()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    if ETCD is None:
        pytest.skip("there is no etcd here: apt-get install etcd-server")
    with running_cluster(tmp_path_factory.mktemp("etcd")) as cluster:
        cluster.wait_until_up()
        yield cluster


PREFIXES = (f"test/{number}" for number in itertools.count())


@pytest.fixture
def etcd_settings(etcd: EtcdCluster) -> EtcdSettings:
    """An empty prefix; patient, since machines that run tests are busy."""
    return etcd.settings(next(PREFIXES), deadline_s=20.0)
