"""Wires between hosts that can be cut and healed: TCP proxies, each in front of one server."""

from __future__ import annotations

import asyncio
import contextlib

from mec_platform.background import BackgroundTasks


class Wire:
    """Where `target` is reached. Cut, connections are reset and nobody gets through; silent, they stay and nothing comes."""

    def __init__(self) -> None:
        self.target = ""
        self.address = ""
        self._tasks = BackgroundTasks()
        self._writers: set[asyncio.StreamWriter] = set()
        self._is_cut = False
        self._flows = asyncio.Event()
        self._flows.set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.address = f"{host}:{port}"

    async def stop(self) -> None:
        self._server.close()
        writers = set(self._writers)
        self.cut()
        await self._tasks.stop()
        for writer in writers:
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        await self._server.wait_closed()

    def cut(self) -> None:
        self._is_cut = True
        for writer in self._writers:
            writer.transport.abort()

    def silence(self) -> None:
        self._flows.clear()

    def heal(self) -> None:
        self._is_cut = False
        self._flows.set()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.transport.abort()
            return
        self._writers.add(writer)  # at once, so that a cut finds it
        self._tasks.start("wire", self._connect(reader, writer))

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(*self.target.rsplit(":", 1))
        except OSError:
            self._writers.discard(writer)
            writer.transport.abort()
            return
        self._writers.add(far_writer)
        if writer.is_closing():  # cut meanwhile
            far_writer.transport.abort()
        for one, other in ((reader, far_writer), (far_reader, writer)):
            self._tasks.start("wire", self._pass_on(one, other))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
        self._writers.discard(writer)
        writer.transport.abort()
