"""A platform on a real server and a real log, which a test can stop, start again and rob of its memory."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from mec_platform.domain.locality import Locality
from mec_platform.enablement_api.routes import make_enablement_app
from mec_platform.registry.host import HostRegistry
from mec_platform.registry.registry import Registry
from mec_platform.registry.sqlite.event_log import SqliteEventLog


class RestartablePlatform:
    """The same address over all its lives; what it remembers between them depends on `state`."""

    def __init__(self, state: Path | str) -> None:
        self._state = state
        # A port that was free a moment ago; chosen here because every life of the platform needs the same one.
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        self._answered: list[tuple[str, str]] = []
        self._changed = asyncio.Condition()
        self._log = await SqliteEventLog.open(self._state)
        self.host = HostRegistry(Registry(self._log), locality=Locality(mec_host="host-1"))
        await self.host.start()
        app = make_enablement_app(self.host)
        app.on_response_prepare.append(self._note)
        self._runner = web.AppRunner(app, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True).start()

    async def _note(self, request: web.Request, response: web.StreamResponse) -> None:
        async with self._changed:
            self._answered.append((request.method, request.path))
            self._changed.notify_all()

    async def until_answered(self, method: str, end_of_path: str) -> None:
        """Returns once this life of the platform has answered such a request."""
        async with self._changed:
            await self._changed.wait_for(
                lambda: any(each[0] == method and each[1].endswith(end_of_path) for each in self._answered)
            )

    async def stop(self) -> None:
        await self._runner.cleanup()
        await self.host.stop()
        await self._log.close()


class Pace:
    """Stands in for `sleep`: heartbeats wait until `beat` lets each of them send once."""

    def __init__(self) -> None:
        self.asked_s: list[float] = []
        self._waiting: list[asyncio.Event] = []
        self._changed = asyncio.Condition()

    async def sleep(self, seconds: float) -> None:
        self.asked_s.append(seconds)
        wake = asyncio.Event()
        async with self._changed:
            self._waiting.append(wake)
            self._changed.notify_all()
        await wake.wait()

    async def wake(self) -> None:
        """Waits for a sleeper and wakes it."""
        await self._until_waiting(1)
        self._waiting.pop(0).set()

    async def beat(self, services: int = 1) -> None:
        """Wakes `services` sleepers and returns when as many have come back to sleep."""
        await self._until_waiting(services)
        waiting, self._waiting = self._waiting, []
        for wake in waiting:
            wake.set()
        await self._until_waiting(services)

    async def _until_waiting(self, number: int) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._waiting) >= number)


@pytest.fixture
async def platform() -> AsyncIterator[RestartablePlatform]:
    """A platform that forgets everything when it stops."""
    platform = RestartablePlatform(":memory:")
    await platform.start()
    yield platform
    await platform.stop()


@pytest.fixture
async def durable_platform(tmp_path: Path) -> AsyncIterator[RestartablePlatform]:
    """A platform that remembers."""
    platform = RestartablePlatform(tmp_path / "state.sqlite")
    await platform.start()
    yield platform
    await platform.stop()


@pytest.fixture
def pace() -> Pace:
    return Pace()
