"""How long a change takes to reach a thousand watchers, and how soon silence is noticed, as clients see it.

Watchers are in processes of their own, which read what comes and note when. All clocks are the machine's monotonic one.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import grpc
import grpc.aio
import uvloop

from mec_platform.background import BackgroundTasks
from mec_platform.rpc.endpoints import open_channel
from mec_platform.rpc.v1 import registry_pb2 as pb
from mec_platform.rpc.v1 import registry_pb2_grpc
from tests.benchmarks.machine import CHECKOUT, BenchmarkError
from tests.benchmarks.registry_offers import make_registration

WATCHERS = 1000
PROCESSES = max(2, min(4, (os.cpu_count() or 1) // 2))
WATCHES_OF_A_CONNECTION = 10
_PAUSE_S = 0.2
"""Between changes: the delay of one that begins behind another would be the other's."""

LEASE_S = 1
_STAGGER_S = 0.13
"""Between the last signs of life of services that fall silent: no multiple of the time between two looks at the leases."""


def measure_delays(address: str, app_instance_id: str, changes: int) -> list[float]:
    """Seconds from asking for a change until a watcher has it, for each watcher and change."""
    with ExitStack() as stack:
        each = WATCHERS // PROCESSES
        processes = [stack.enter_context(_watching(address, each)) for _ in range(PROCESSES)]
        for process in processes:
            _read(process)
        channel = stack.enter_context(grpc.insecure_channel(address))
        stub = registry_pb2_grpc.ServiceRegistryStub(channel)
        found: list[float] = []
        for number in range(changes):
            time.sleep(_PAUSE_S)
            began_s = time.monotonic()
            stub.Register(make_registration(app_instance_id, number))
            found += [at_s - began_s for process in processes for at_s in _read(process)]
    return found


def quantile(values: Sequence[float], percent: int) -> float:
    """Of many values."""
    return statistics.quantiles(values, n=100)[percent - 1]


@contextmanager
def _watching(address: str, watchers: int) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.benchmarks.registry_watchers", address, str(watchers)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT) as process:
        try:
            yield process
        finally:
            process.kill()


def _read(process: subprocess.Popen[str]) -> list[float]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise BenchmarkError("the watchers ended")
    said: list[float] = json.loads(line)
    return said


async def measure_expiry(address: str, app_instance_id: str, services: int) -> list[float]:
    """Seconds from a service's last sign of life until a watcher sees it SUSPENDED; all have leases of `LEASE_S`."""
    last_s: dict[str, float] = {}
    noticed_s: dict[str, float] = {}
    async with open_channel(address) as channel, BackgroundTasks() as tasks:
        stub: registry_pb2_grpc.ServiceRegistryAsyncStub = registry_pb2_grpc.ServiceRegistryStub(channel)
        watch = stub.Watch(pb.WatchRequest(states=[pb.SERVICE_STATE_SUSPENDED]))
        await watch.read()

        async def fall_silent() -> None:
            for number in range(services):
                request = make_registration(app_instance_id, number)
                request.description.lease.interval_s = LEASE_S
                reply = await stub.Register(request)
                renewal = stub.Renew()
                sent_s = time.monotonic()
                await renewal.write(
                    pb.RenewRequest(heartbeats=[pb.ServiceHeartbeat(service_id=reply.service.service_id)])
                )
                await renewal.read()
                await renewal.done_writing()
                last_s[reply.service.service_id] = sent_s
                await asyncio.sleep(_STAGGER_S)

        tasks.start("falling silent", fall_silent())
        async with asyncio.timeout(60):
            while len(noticed_s) < services:
                reply = await watch.read()
                noticed_s |= {each.service.service_id: time.monotonic() for each in reply.changes}
    return [noticed_s[each] - last_s[each] for each in noticed_s]


# What follows runs in a process of watchers.


async def _watch_all(address: str, watchers: int) -> None:
    channels: list[grpc.aio.Channel] = []
    arrived: list[float] = []
    ready = 0

    def note_arrival() -> None:
        arrived.append(time.monotonic())
        if len(arrived) == watchers:
            _say(arrived)
            arrived.clear()

    async def watch(channel: grpc.aio.Channel) -> None:
        nonlocal ready
        stub: Any = channel.unary_stream("/mec_platform.rpc.v1.ServiceRegistry/Watch")
        # A bookmark would come between; the time of the measurement is shorter than that.
        call = stub(pb.WatchRequest(bookmark_interval_s=300).SerializeToString())
        await call.read()
        ready += 1
        if ready == watchers:
            _say([])
        while True:
            await call.read()
            note_arrival()

    async with BackgroundTasks() as tasks:
        under_way = []
        for number in range(watchers):
            if number % WATCHES_OF_A_CONNECTION == 0:
                options = [("grpc.use_local_subchannel_pool", 1)]
                channels.append(grpc.aio.insecure_channel(address, options=options))
            under_way.append(tasks.start(f"watcher {number}", watch(channels[-1])))
        await asyncio.gather(*under_way)


def _say(what: list[float]) -> None:
    print(json.dumps(what), flush=True)  # noqa: T201


if __name__ == "__main__":
    uvloop.run(_watch_all(sys.argv[1], int(sys.argv[2])))
