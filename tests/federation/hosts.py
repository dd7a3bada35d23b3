"""Hosts of a federation in one process: real registries over real files, and real gRPC servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import grpc.aio

from mec_platform.domain.applications import AppDescription
from mec_platform.domain.locality import Locality
from mec_platform.domain.services import ServiceDescription, ServiceInfo
from mec_platform.peer_access import GrpcPeerAccess
from mec_platform.registry.events import RegistryFounded
from mec_platform.registry.federation.federation import Federation
from mec_platform.registry.federation.peers import FederationSettings, PeerStatus
from mec_platform.registry.federation.reconciliation import shared_view
from mec_platform.registry.federation.sharing import SERVICE_NAME
from mec_platform.registry.host import HostRegistry
from mec_platform.registry.registry import Registry
from mec_platform.registry.sqlite.event_log import SqliteEventLog
from mec_platform.rpc.endpoints import make_server, start_server
from tests.federation.wires import Wire
from tests.registry.services import GREETING

SETTINGS = FederationSettings(retry_s=0.02, digest_s=0.05, silent_after_s=20.0)
SHARED = replace(GREETING, consumed_local_only=False, liveness_interval_s=None, evict_after_intervals=None)


class Host:
    """One host: `start` and `stop` may be called again and again over the same state file."""

    def __init__(self, name: str, state: Path | str, place: Locality | None = None, **options: Any) -> None:
        self.name = name
        self.state = state
        self.place = place or Locality(mec_host=name)
        self.wire = Wire()
        self.peers: list[Host] = []
        self.settings: FederationSettings = options.pop("settings", SETTINGS)
        self._options = options
        self.running = False

    async def start(self, registry_id: str = "") -> None:
        """With `registry_id` a new registry is that one, whatever its ids are otherwise."""
        self._log = await SqliteEventLog.open(self.state)
        self.host = HostRegistry(Registry(self._log, **self._options), locality=self.place)
        await self.host.start()
        if registry_id:
            await self.host.registry.commit(lambda state: RegistryFounded(registry_id))
        peers = {peer.name: GrpcPeerAccess(peer.wire.address) for peer in self.peers}
        self.federation = Federation(self.host, peers, self.settings, Random(0))
        self._server: grpc.aio.Server = make_server()
        self.federation.sharing.add_to(self._server)
        await self.federation.start()
        self.wire.target = await start_server(self._server, "127.0.0.1", 0, [SERVICE_NAME])
        self.running = True

    async def stop(self) -> None:
        if self.running:
            self.running = False
            await self.federation.stop()
            await self._server.stop(None)
            await self.host.stop()
            await self._log.close()

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    @property
    def services(self) -> Mapping[str, ServiceInfo]:
        return self.host.registry.state.services

    def own(self) -> list[ServiceInfo]:
        return [each for each in self.services.values() if not each.origin]

    def copies(self, of: Host) -> dict[str, ServiceInfo]:
        """What it has of another host, as that has it."""
        return {each.service_id: shared_view(each) for each in self.services.values() if each.origin == of.name}

    def shares(self, with_: Host) -> dict[str, ServiceInfo]:
        """What another host should have of it."""
        return {each.service_id: shared_view(each) for each in self.own() if each.is_offered_at(with_.place)}

    def link(self, to: Host) -> PeerStatus:
        (status,) = [each for each in self.federation.statuses if each.name == to.name]
        return status

    async def app(self) -> str:
        app = await self.host.applications.register(AppDescription(name="app"), locality=self.place)
        return app.app_instance_id

    async def offer(self, app_id: str, description: ServiceDescription = SHARED, **changes: Any) -> ServiceInfo:
        return await self.host.services.register_service(app_id, replace(description, **changes))


@asynccontextmanager
async def federation(folder: Path, *names: str, **options: Any) -> AsyncIterator[list[Host]]:
    """Hosts that are all peers of each other, running."""
    places: Mapping[str, Locality] = options.pop("places", {})
    hosts = [Host(name, folder / f"{name}.sqlite", places.get(name), **options) for name in names]
    async with AsyncExitStack() as stack:
        for host in hosts:
            host.peers = [each for each in hosts if each is not host]
            await host.wire.start()
            stack.push_async_callback(host.wire.stop)
        for host in hosts:
            await host.start()
            stack.push_async_callback(host.stop)
        yield hosts


async def eventually(holds: Callable[[], bool], *hosts: Host) -> None:
    """Waits until this holds; fails, with how the links stand, where it never does."""
    try:
        async with asyncio.timeout(30):
            while not holds():  # noqa: ASYNC110
                await asyncio.sleep(0.005)
    except TimeoutError:
        states = {host.name: list(host.federation.statuses) for host in hosts if host.running}
        raise AssertionError(f"it never came to hold; {states}") from None


def in_step(hosts: Iterable[Host]) -> bool:
    """Whether every host has exactly what each of the others shares with it."""
    running = [host for host in hosts if host.running]
    return all(one.copies(other) == other.shares(one) for one in running for other in running if one is not other)
