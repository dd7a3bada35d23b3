"""A service's description, and a host over a log: what many tests of the registry begin with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mec_platform.domain.applications import AppDescription
from mec_platform.domain.capabilities import Capabilities
from mec_platform.domain.layers import LayerRange
from mec_platform.domain.locality import Locality
from mec_platform.domain.services import (
    EndPoint,
    SerializerType,
    ServiceDescription,
    ServiceState,
    TransportInfo,
    TransportType,
)
from mec_platform.registry.clock import Clock
from mec_platform.registry.host import HostRegistry
from mec_platform.registry.registry import Registry
from mec_platform.registry.sqlite.event_log import SqliteEventLog

HOST = Locality(mec_host="host-1")
CAPABILITIES = Capabilities(model="smollm2", layers=LayerRange(0, 12), trust_level=1, labels={"rack": "a"})
GREETING = ServiceDescription(
    name="greeting",
    version="1.0",
    state=ServiceState.ACTIVE,
    transport=TransportInfo(
        id="grpc",
        name="gRPC",
        type=TransportType.RPC,
        protocol="gRPC",
        version="1",
        endpoint=EndPoint(uris=("http://127.0.0.1:9000/",)),
    ),
    serializer=SerializerType.PROTOBUF3,
    liveness_interval_s=10,
    evict_after_intervals=3,
    capabilities=CAPABILITIES,
)


@asynccontextmanager
async def running_host(clock: Clock, state: Path | str = ":memory:", **options: Any) -> AsyncIterator[HostRegistry]:
    """A host's registry over the log in this file."""
    log = await SqliteEventLog.open(state)
    compact_after = options.pop("compact_after", 20_000)
    host = HostRegistry(Registry(log, clock=clock, compact_after=compact_after), locality=HOST, **options)
    await host.start()
    try:
        yield host
    finally:
        await host.stop()
        await log.close()


async def until(holds: Callable[[], bool]) -> None:
    """Lets everything else run until this holds; fails where it never does."""
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0)


async def make_app(host: HostRegistry, owner: str = "") -> str:
    """The id of a new application instance."""
    return (await host.applications.register(AppDescription(name="greeter"), owner=owner)).app_instance_id
