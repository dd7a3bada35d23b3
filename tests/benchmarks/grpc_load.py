"""gRPC calls from processes of their own: how many answers a second, and how long each takes.

A generator sends bytes that were written before and reads nothing of what comes back, so that it costs as little as a Python
client can; each of its clients has a connection of its own. In a closed loop a client's next call follows the answer to its
last one. In an open loop calls are due at a rate, and a call that had to wait for its client has waited since then.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import statistics
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import grpc
import grpc.aio
import msgspec
import uvloop

from mec_platform.background import BackgroundTasks
from tests.benchmarks.http_load import Load
from tests.benchmarks.machine import CHECKOUT, BenchmarkError

GENERATORS = max(1, min(4, (os.cpu_count() or 1) // 2))
"""Processes that share a load, and leave half of the cores to the server and the system."""

IN_FLIGHT = 256
"""Requests of one stream that wait for their answers."""

_OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", -1),
]


class Calls(msgspec.Struct, frozen=True, kw_only=True):
    """A load: `clients` call a method for so long, with the requests in turn. `rate_per_s` (of all) makes an open loop;
    `streams` sends requests on one stream of each client, and the times are those of its answers."""

    address: str
    method: str
    requests: Sequence[bytes]
    clients: int
    seconds: float
    rate_per_s: float | None = None
    streams: bool = False


@dataclass(frozen=True, slots=True)
class _Share:
    """What one generator does of a load: clients `first`, `first + step`, ..."""

    calls: Calls
    first: int
    step: int


def put_calls(calls: Calls) -> Load:
    """Puts the load on a server, once all its clients are connected.

    Raises:
        BenchmarkError: a call failed; the message is the first failure's.
    """
    shares = [_Share(calls, first, GENERATORS) for first in range(min(GENERATORS, calls.clients))]
    with ExitStack() as stack:
        generators = [stack.enter_context(_start_generator(share)) for share in shares]
        for each in generators:
            _read(each)
        for each in generators:
            _write(each, b"go")
        outcomes = [_read(each) for each in generators]
    times_s = [each for outcome in outcomes for each in outcome["times_s"]]
    if len(times_s) < 2:
        raise BenchmarkError(f"{calls.method} was answered {len(times_s)} times in {calls.seconds:g} s")
    cuts = statistics.quantiles(times_s, n=100)
    # All begin together, and each ends with the last answer that it waited for.
    return Load(len(times_s) / max(each["took_s"] for each in outcomes), cuts[49] * 1e3, cuts[98] * 1e3)


def _start_generator(share: _Share) -> subprocess.Popen[bytes]:
    generator = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.grpc_load"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=CHECKOUT,
    )
    _write(generator, msgspec.json.encode(share))
    return generator


def _write(generator: subprocess.Popen[bytes], line: bytes) -> None:
    assert generator.stdin is not None
    generator.stdin.write(line + b"\n")
    generator.stdin.flush()


def _read(generator: subprocess.Popen[bytes]) -> dict[str, Any]:
    assert generator.stdout is not None
    line = generator.stdout.readline()
    said: dict[str, Any] = json.loads(line) if line else {"failure": "a load generator ended"}
    if "failure" in said:
        raise BenchmarkError(said["failure"])
    return said


# What follows runs in a generator.


async def _generate(share: _Share) -> dict[str, object]:
    calls = share.calls
    numbers = range(share.first, calls.clients, share.step)
    channels = [grpc.aio.insecure_channel(calls.address, options=_OPTIONS) for _ in numbers]
    try:
        await asyncio.wait_for(asyncio.gather(*(each.channel_ready() for each in channels)), 30)
        _say({"connected": len(channels)})
        sys.stdin.buffer.readline()
        begin_s = perf_counter()
        times_s: list[float] = []
        async with BackgroundTasks() as tasks:
            clients = [
                tasks.start(f"client {number}", _client(channel, calls, number, begin_s, times_s))
                for number, channel in zip(numbers, channels, strict=True)
            ]
            await asyncio.gather(*clients)
        return {"times_s": times_s, "took_s": perf_counter() - begin_s}
    except grpc.aio.AioRpcError as error:
        return {"failure": f"{calls.method} at {calls.address}: {error.code().name} {error.details()}"}
    finally:
        await asyncio.gather(*(each.close() for each in channels))


async def _client(channel: grpc.aio.Channel, calls: Calls, number: int, begin_s: float, times_s: list[float]) -> None:
    requests = itertools.islice(itertools.cycle(calls.requests), number, None, calls.clients)
    if calls.streams:
        await _stream(channel, calls, requests, begin_s + calls.seconds, times_s)
    elif calls.rate_per_s is None:
        await _call_closed(channel, calls, requests, begin_s + calls.seconds, times_s)
    else:
        first_s, every_s = begin_s + number / calls.rate_per_s, calls.clients / calls.rate_per_s
        await _call_open(channel, calls, requests, first_s, every_s, begin_s + calls.seconds, times_s)


async def _call_closed(
    channel: grpc.aio.Channel, calls: Calls, requests: Iterator[bytes], end_s: float, times_s: list[float]
) -> None:
    call = channel.unary_unary(calls.method)
    while (sent_s := perf_counter()) < end_s:
        await call(next(requests))
        times_s.append(perf_counter() - sent_s)


async def _call_open(
    channel: grpc.aio.Channel,
    calls: Calls,
    requests: Iterator[bytes],
    due_s: float,
    every_s: float,
    end_s: float,
    times_s: list[float],
) -> None:
    call = channel.unary_unary(calls.method)
    while due_s < end_s:
        wait_s = due_s - perf_counter()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        # A timer that rings late is no fault of the server's.
        sent_s = perf_counter() if wait_s > 0 else due_s
        await call(next(requests))
        times_s.append(perf_counter() - sent_s)
        due_s += every_s


async def _stream(
    channel: grpc.aio.Channel, calls: Calls, requests: Iterator[bytes], end_s: float, times_s: list[float]
) -> None:
    stream = channel.stream_stream(calls.method)()
    room, sent_s = asyncio.Semaphore(IN_FLIGHT), deque[float]()

    async def write() -> None:
        while perf_counter() < end_s:
            await room.acquire()
            sent_s.append(perf_counter())
            await stream.write(next(requests))
        await stream.done_writing()

    async with BackgroundTasks() as tasks:
        writing = tasks.start("writer", write())
        while await stream.read() is not grpc.aio.EOF:
            room.release()
            times_s.append(perf_counter() - sent_s.popleft())
        await writing


def _say(what: dict[str, object]) -> None:
    print(json.dumps(what), flush=True)  # noqa: T201


if __name__ == "__main__":
    _say(uvloop.run(_generate(msgspec.json.decode(sys.stdin.buffer.readline(), type=_Share))))
