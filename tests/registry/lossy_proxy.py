"""A TCP proxy that loses what a test wants lost: the network between a platform and its store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from mec_platform.background import BackgroundTasks


class LossyProxy:
    """Passes bytes on to `target` (host:port). With `loses_answers` what comes back is swallowed."""

    def __init__(self, target: str) -> None:
        self._host, _, self._port = target.rpartition(":")
        self._tasks = BackgroundTasks()
        self._writers: set[asyncio.StreamWriter] = set()
        self.loses_answers = False
        self.address = ""

    async def start(self) -> None:
        """Listens, and says where in `address`."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", int(self.address.rpartition(":")[2] or 0))
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def cut(self) -> None:
        """Breaks every connection and takes no new ones until `start`."""
        self._server.close()
        for writer in tuple(self._writers):
            writer.transport.abort()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection(self._host, self._port)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, upstream_writer}
        back = self._tasks.start("answers", self._pass_on(upstream_reader, writer, may_be_lost=True))
        await self._pass_on(reader, upstream_writer, may_be_lost=False)
        await asyncio.wait([back])
        self._writers -= {writer, upstream_writer}

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, may_be_lost: bool) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if not (may_be_lost and self.loses_answers):
                    writer.write(data)
                    await writer.drain()
        writer.transport.abort()


@asynccontextmanager
async def lossy_proxy(target: str) -> AsyncIterator[LossyProxy]:
    proxy = LossyProxy(target)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.cut()
