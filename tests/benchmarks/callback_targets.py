"""Callback targets in a process of their own: some that answer at once, one that answers late, one that never does.

No framework: what a target costs would be missing on the platform's side of two shared cores. Prints its ports as one JSON
line; the first port answers GET with what has come: [monotonic seconds, path, instance id of the service] for each.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from typing import Any

import uvloop

QUICK_TARGETS = 8
LATE_S = 2.0

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_SERVICE = re.compile(rb'"serInstanceId":"([^"]+)"')
_TAKEN = b"HTTP/1.1 204 No Content\r\n\r\n"

arrivals: list[tuple[float, str, str]] = []


class Target(asyncio.Protocol):
    """Just enough HTTP for what the platform and the benchmark send."""

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        """Takes every request that is complete."""
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self._data, 0, end)
            rest = end + 4 + (int(length[1]) if length else 0)
            if len(self._data) < rest:
                return
            self._take(self._data[:end], self._data[end + 4 : rest])
            self._data = self._data[rest:]

    def _take(self, head: bytes, body: bytes) -> None:
        method, path, _ = head.split(b" ", 2)
        if method == b"GET":
            answer = json.dumps(arrivals).encode()
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer))
            return
        service = _SERVICE.search(body)
        if service is not None:
            arrivals.append((time.monotonic(), path.decode(), service[1].decode()))
        if self._delay_s:
            asyncio.get_running_loop().call_later(self._delay_s, self._transport.write, _TAKEN)
        else:
            self._transport.write(_TAKEN)


async def main() -> None:
    """Serves until it is ended."""
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(lambda: Target(0), "127.0.0.1", 0) for _ in range(QUICK_TARGETS)]
    servers.append(await loop.create_server(lambda: Target(LATE_S), "127.0.0.1", 0))
    # Nobody accepts: connections open, and nothing ever comes back.
    black_hole = socket.create_server(("127.0.0.1", 0), backlog=128)
    ports = [server.sockets[0].getsockname()[1] for server in servers]
    quick, (late,) = ports[:QUICK_TARGETS], ports[QUICK_TARGETS:]
    print(json.dumps({"quick": quick, "late": late, "dead": black_hole.getsockname()[1]}), flush=True)  # noqa: T201
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
