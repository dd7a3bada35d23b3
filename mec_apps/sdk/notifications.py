"""What the platform tells an application, over WebSockets that the application opens: nothing needs to reach it from outside.

`application` hands out `Watch` and keeps what these need of it. A connection that breaks is opened again; what happened
meanwhile waits at the platform, and what is sent again because its arrival was not known is dropped.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import msgspec
from aiohttp import ClientWebSocketResponse, WSMsgType

from mec_apps.sdk.errors import MecError, NotRegistered, RequestRefused
from mec_apps.sdk.mp1 import Mp1Client, WebSocketSubscription
from mec_apps.sdk.session import PlatformSession
from mec_platform.background import BackgroundTasks
from mec_platform.domain.services import ServiceState
from mec_platform.domain.subscriptions import ChangeType

logger = logging.getLogger(__name__)

RECONNECT_S = 1.0

MOST_UNREAD = 1000
"""Notifications that are kept for a reader who is slow; beyond them they wait at the platform."""

Subscribe = Callable[[], Awaitable[WebSocketSubscription]]


class NotificationStream:
    """The notifications of one subscription, renewed where the platform has forgotten it.

    They are read ahead of their use: reading is what answers the platform's pings, and a notification whose ping is not
    answered is sent again.
    """

    def __init__(
        self, session: PlatformSession, mp1: Mp1Client, subscribe: Subscribe, sleep: Callable[[float], Awaitable[None]]
    ) -> None:
        self._session = session
        self._mp1 = mp1
        self._subscribe = subscribe
        self._sleep = sleep
        self._subscription: WebSocketSubscription | None = None
        self._unread: asyncio.Queue[bytes | None] = asyncio.Queue(MOST_UNREAD)
        self._tasks = BackgroundTasks()
        self._ended = False
        self._last_id = b""

    async def open(self) -> None:
        """Subscribes, once; raises the SDK's errors."""
        if self._subscription is None and not self._ended:
            self._subscription = await self._subscribe()
            self._tasks.start("notifications", self._read())

    async def next(self) -> bytes | None:
        """The next notification; None once there are no more: it was closed, or the instance has ended."""
        if self._ended and self._unread.empty():
            return None
        message = await self._unread.get()
        self._ended = self._ended or message is None
        return message

    async def close(self) -> None:
        """Ends the subscription, and whoever waits; that the platform has forgotten it, or is silent, is no problem."""
        if self._ended:
            return
        self._ended = True
        await self._tasks.stop()
        if self._unread.empty():
            self._unread.put_nowait(None)
        if self._subscription is not None:
            try:
                await self._mp1.unsubscribe(self._subscription.uri)
            except MecError as error:
                logger.debug("a subscription was not ended: %s", error)

    async def _read(self) -> None:
        """Goes on over broken connections, until the platform takes no subscription any more."""
        answering = True
        while True:
            try:
                await self._connect_and_read()
                answering = True
            except MecError as error:
                if isinstance(error, RequestRefused) and error.status == 409:
                    logger.info("the platform tells nothing more: %s", error)
                    await self._unread.put(None)
                    return
                if answering:
                    logger.warning("notifications are interrupted, trying on: %s", error)
                answering = False
            await self._sleep(RECONNECT_S)

    async def _connect_and_read(self) -> None:
        assert self._subscription is not None
        try:
            socket = await self._session.connect(self._subscription.websocket_uri)
        except NotRegistered:
            self._subscription = await self._subscribe()
            socket = await self._session.connect(self._subscription.websocket_uri)
        async with socket:
            await self._read_frames(socket)

    async def _read_frames(self, socket: ClientWebSocketResponse) -> None:
        """The ping behind a frame carries the notification's id: one that came on an earlier connection is dropped."""
        held: bytes | None = None
        async for frame in socket:
            if frame.type is WSMsgType.TEXT:
                if held is not None:
                    await self._unread.put(held)
                held = frame.data.encode()
            elif frame.type is WSMsgType.PING:
                if held is not None and (not frame.data or frame.data != self._last_id):
                    await self._unread.put(held)
                if held is not None:
                    held, self._last_id = None, bytes(frame.data)
                await socket.pong(frame.data)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceChange:
    """A service came, went or changed; `state` is that after the change."""

    change: ChangeType
    service_id: str
    name: str
    state: ServiceState


class _Reference(msgspec.Struct, rename="camel"):
    change_type: ChangeType
    ser_instance_id: str
    ser_name: str
    state: ServiceState


class _Notification(msgspec.Struct, rename="camel"):
    service_references: list[_Reference] = []


class Watch:
    """Changes of services, one after the other, for `async for`.

    The subscription begins with the first step of the loop, or with `async with`, and ends with it or with the application.
    """

    def __init__(self, stream: NotificationStream) -> None:
        self._stream = stream
        self._changes: deque[ServiceChange] = deque()

    async def __aenter__(self) -> Self:
        await self._stream.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stream.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ServiceChange:
        await self._stream.open()
        while not self._changes:
            message = await self._stream.next()
            if message is None:
                raise StopAsyncIteration
            self._changes += _read_changes(message)
        return self._changes.popleft()


def _read_changes(message: bytes) -> list[ServiceChange]:
    return [
        ServiceChange(change=each.change_type, service_id=each.ser_instance_id, name=each.ser_name, state=each.state)
        for each in msgspec.json.decode(message, type=_Notification).service_references
    ]
