"""A callback target that answers as a test tells it, and says what has come."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer


@dataclass(frozen=True, slots=True)
class Received:
    """One request, as it came."""

    headers: dict[str, str]
    body: bytes

    @property
    def message(self) -> dict[str, Any]:
        return json.loads(self.body)

    @property
    def services(self) -> list[str]:
        return [each["serName"] for each in self.message["serviceReferences"]]


class Receiver:
    """Answers with the next of `answers`, with 204 once there are none left; hangs while `open` is not set."""

    def __init__(self) -> None:
        self.answers: list[web.Response] = []
        self.open = asyncio.Event()
        self.open.set()
        self.url = ""
        self._received: asyncio.Queue[Received] = asyncio.Queue()

    async def take(self, request: web.Request) -> web.StreamResponse:
        self._received.put_nowait(Received(dict(request.headers), await request.read()))
        await self.open.wait()
        return self.answers.pop(0) if self.answers else web.Response(status=204)

    async def next(self) -> Received:
        return await self._received.get()

    async def names(self, number: int) -> list[str]:
        """The service names of the next notifications, each of which is about one service."""
        return [name for _ in range(number) for name in (await self.next()).services]

    @property
    def has_more(self) -> bool:
        return not self._received.empty()


@asynccontextmanager
async def serve_receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{any:.*}", receiver.take)
    async with TestServer(app) as server:
        receiver.url = str(server.make_url("/callback"))
        yield receiver
        receiver.open.set()
