"""WebSockets over which subscribers behind firewalls are told (MEC 009 clause 6.12a): the subscriber connects, the platform sends.

A frame is the JSON that a callback would be posted. Behind each frame goes a ping: frames are read in order, so the pong
proves that the notification arrived, which a frame that was merely written does not. The ping carries the notification's id,
so that a subscriber who looks at pings can drop repetitions. What the subscriber sends is not read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from aiohttp import WSCloseCode, WSMsgType, web

from mec_platform.background import BackgroundTasks
from mec_platform.enablement_api.notifications.callbacks import Message
from mec_platform.enablement_api.notifications.outcome import Away, Delivered, Outcome
from mec_platform.enablement_api.notifications.settings import DeliverySettings
from mec_platform.enablement_api.problem_details import Forbidden

logger = logging.getLogger(__name__)

LARGEST_FRAME_BYTES = 4096
"""Of what subscribers send, which is nothing of use."""


@dataclass(slots=True)
class _Connection:
    """`arrived` is done once the pong behind the notification that is on its way, of the id `sent`, has come."""

    socket: web.WebSocketResponse
    sent: bytes = b""
    arrived: asyncio.Future[None] | None = field(default=None)


class NotificationSockets:
    """At most one connection for each subscription: a newer one replaces the older.

    `on_connected` is told of a subscription that can be sent to from now on.
    """

    def __init__(self, settings: DeliverySettings, on_connected: Callable[[str], None]) -> None:
        self._settings = settings
        self._on_connected = on_connected
        self._connections: dict[str, _Connection] = {}
        self._tasks = BackgroundTasks()

    async def serve(self, request: web.Request, subscription_id: str) -> web.WebSocketResponse:
        """Keeps the connection until one of the two sides ends it. Whether the client may have it was decided before.

        Raises:
            Forbidden: a browser asks for a page that the platform has not served.
            web.HTTPBadRequest: the request asks for no WebSocket.
        """
        check_origin(request)
        socket = web.WebSocketResponse(
            autoping=False,
            heartbeat=self._settings.ping_every_s,
            max_msg_size=LARGEST_FRAME_BYTES,
            compress=False,
        )
        await socket.prepare(request)
        connection = _Connection(socket)
        older = self._connections.get(subscription_id)
        self._connections[subscription_id] = connection
        if older is not None:
            self._end(older, WSCloseCode.POLICY_VIOLATION, "replaced by a newer connection")
        self._on_connected(subscription_id)
        try:
            await _read(connection)
        finally:
            if self._connections.get(subscription_id) is connection:
                del self._connections[subscription_id]
            _note_arrival(connection, lost=True)
        return socket

    async def send(self, subscription_id: str, message: Message) -> Outcome:
        """Sends one notification and waits until it has arrived; Away where nobody is, or is not any more."""
        connection = self._connections.get(subscription_id)
        if connection is None:
            return Away()
        connection.sent = message.id.encode()
        connection.arrived = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self._settings.attempt_timeout_s):
                await connection.socket.send_frame(message.body, WSMsgType.TEXT)
                await connection.socket.ping(connection.sent)
                await connection.arrived
        except (ConnectionError, TimeoutError):
            if self._connections.get(subscription_id) is connection:
                del self._connections[subscription_id]
            logger.info("subscription %s: the WebSocket took a notification and did not confirm it", subscription_id)
            self._end(connection, WSCloseCode.GOING_AWAY, "no pong came back")
            return Away()
        return Delivered()

    def has(self, subscription_id: str) -> bool:
        """Whether it is connected here."""
        return subscription_id in self._connections

    @property
    def connected(self) -> int:
        """Subscriptions with a connection."""
        return len(self._connections)

    def close(self, subscription_id: str) -> None:
        """The subscription is gone."""
        connection = self._connections.pop(subscription_id, None)
        if connection is not None:
            self._end(connection, WSCloseCode.OK, "the subscription has ended")

    async def stop(self) -> None:
        """The platform goes down; subscribers may connect again to its next life."""
        connections = list(self._connections.values())
        await asyncio.gather(
            *(each.socket.close(code=WSCloseCode.GOING_AWAY, message=b"the platform stops") for each in connections)
        )
        await self._tasks.stop()

    def _end(self, connection: _Connection, code: WSCloseCode, reason: str) -> None:
        # Beside everything else: a peer that is gone does not answer the closing handshake.
        self._tasks.start("end of a WebSocket", connection.socket.close(code=code, message=reason.encode()))


def check_origin(request: web.Request) -> None:
    """Refuses pages of other sites, which would connect with their visitor's access to the network. Raises Forbidden.

    Clients that are no browsers send no Origin.
    """
    origin = request.headers.get("Origin")
    if origin is not None and origin.partition("://")[2] != request.host:
        raise Forbidden(f"pages of {origin} may not open WebSockets here")


async def _read(connection: _Connection) -> None:
    async for message in connection.socket:
        if message.type is WSMsgType.PING:
            await connection.socket.pong(message.data)
        elif message.type is WSMsgType.PONG and message.data == connection.sent:
            _note_arrival(connection)


def _note_arrival(connection: _Connection, lost: bool = False) -> None:
    if connection.arrived is None or connection.arrived.done():
        return
    if lost:
        connection.arrived.set_exception(ConnectionResetError("the connection ended"))
    else:
        connection.arrived.set_result(None)
