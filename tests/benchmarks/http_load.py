"""One HTTP request, sent over and over on some connections that stay open: how many answers a second, and how long they take.

`wrk` sends where it is installed. Else a client of this module does, in a process of its own and without a framework, since
what the load costs must not hold up the server that is measured.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvloop

from tests.benchmarks.machine import BenchmarkError, run_apart, run_tool

_REPORT = Path(__file__).parent / "data" / "report.lua"
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Load:
    """What came of a load: answers a second over all connections, and the time of one from request to last byte."""

    per_s: float
    p50_ms: float
    p99_ms: float


def wrk() -> str | None:
    """Where the program is, if it is."""
    return shutil.which("wrk")


def put_load(url: str, connections: int, seconds: float, body: str | None = None) -> Load:
    """GETs, or POSTs of a JSON body; the next request on a connection follows the answer to the last.

    Raises:
        BenchmarkError: an answer was no success.
    """
    program = wrk()
    if program is None:
        came = run_apart("http_load", url, connections, seconds, *(() if body is None else (body,)))
    else:
        # The script has the last word, behind wrk's own report. wrk counts in whole seconds.
        options = [f"-c{connections}", f"-d{max(1, round(seconds))}s", "-t1", "-s", str(_REPORT)]
        came = json.loads(run_tool([program, *options, url, *(() if body is None else ("--", body))]).splitlines()[-1])
    if came["failures"] or not came["answers"]:
        raise BenchmarkError(f"{came['failures']} of {came['answers']} requests to {url} failed")
    return Load(came["answers"] / came["seconds"], came["p50_ms"], came["p99_ms"])


class _Connection(asyncio.Protocol):
    """Sends the request again as soon as it is answered; just enough HTTP for what servers here answer."""

    def __init__(self, request: bytes, times_s: list[float]) -> None:
        self._request = request
        self._times_s = times_s
        self._head = b""
        self._missing = 0
        self.failures = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._send()

    def _send(self) -> None:
        self._sent_s = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Counts the bytes of an answer down; one connection has one request under way."""
        if not self._missing:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            length = _LENGTH.search(self._head, 0, end)
            self.failures += not self._head.startswith(b"HTTP/1.1 2")
            self._missing = end + 4 + (int(length[1]) if length else 0) - len(self._head)
            self._head = b""
        else:
            self._missing -= len(data)
        if not self._missing:
            self._times_s.append(time.perf_counter() - self._sent_s)
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        """The server ends none of them; the end of the measurement does."""
        self.failures += exc is not None


async def _load(url: str, connections: int, seconds: float, body: str | None) -> dict[str, float]:
    parts = urlsplit(url)
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    head = f"{'GET' if body is None else 'POST'} {target} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
    content = (body or "").encode()
    if body is not None:
        head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
    request = f"{head}\r\n".encode() + content
    times_s: list[float] = []
    loop = asyncio.get_running_loop()
    begin_s = time.perf_counter()
    opened = [
        await loop.create_connection(lambda: _Connection(request, times_s), parts.hostname, parts.port)
        for _ in range(connections)
    ]
    await asyncio.sleep(seconds)
    took_s = time.perf_counter() - begin_s
    for transport, _ in opened:
        transport.abort()
    cuts = statistics.quantiles(times_s, n=100)
    return {
        "answers": len(times_s),
        "seconds": took_s,
        "p50_ms": cuts[49] * 1e3,
        "p99_ms": cuts[98] * 1e3,
        "failures": sum(protocol.failures for _, protocol in opened),
    }


if __name__ == "__main__":
    target_url, count, length_s, *bodies = sys.argv[1:]
    outcome = uvloop.run(_load(target_url, int(count), float(length_s), bodies[0] if bodies else None))
    print(json.dumps(outcome))  # noqa: T201
