"""Replicas of one MEC host in one process: registries that share nothing but their store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from mec_platform.domain.locality import Locality
from mec_platform.registry.clock import Clock
from mec_platform.registry.effects import Effect
from mec_platform.registry.etcd.settings import EtcdSettings
from mec_platform.registry.host import HostRegistry
from mec_platform.registry.leadership import Leadership
from mec_platform.registry.registry import Registry
from mec_platform.registry.store import Store, open_store

HOST = Locality(mec_host="host-1")


@dataclass(slots=True)
class Replica:
    """What one platform has of the registry. `told` are the effects in order."""

    host: HostRegistry
    store: Store
    told: list[Effect] = field(default_factory=list)

    @property
    def leadership(self) -> Leadership:
        return self.store.leadership

    @property
    def names(self) -> list[str]:
        return sorted(app.name for app in self.host.applications.all())


@asynccontextmanager
async def replica(settings: EtcdSettings, name: str = "replica", clock: Clock | None = None) -> AsyncIterator[Replica]:
    """One that stands for election and runs, as a platform does it."""
    store = await open_store(settings, name)
    host = HostRegistry(
        Registry(store.log, clock=clock, leadership=store.leadership), locality=HOST, exchange=store.exchange
    )
    made = Replica(host, store)
    host.registry.add_listener(made.told.append)
    try:
        await store.leadership.start()
        await host.start()
        yield made
    finally:
        await host.stop()
        await store.leadership.stop()
        await store.log.close()


async def eventually(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    """Returns when it holds: what one replica does, others see a moment later."""
    async with asyncio.timeout(30):
        while True:
            holds = condition()
            if holds if isinstance(holds, bool) else await holds:
                return
            await asyncio.sleep(0.005)
