"""How soon two MEC hosts agree again that could not reach each other, and whether anything was lost or came back.

Two `mec serve` processes with 5,000 services each follow each other through wires that the benchmark cuts. While they are apart,
500 services change on each side: of ten changes, six are updates, two removals and two registrations. Measured is the time from
the moment that the wires are whole until each host has exactly what the other one has, as watchers of both see it. Once the
connections are reset, as a router does it that knows, and once they are silent, as packets are that nobody answers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import uvloop

from mec_platform.rpc.endpoints import open_channel
from mec_platform.rpc.v1 import registry_pb2 as pb
from mec_platform.rpc.v1 import registry_pb2_grpc
from tests.benchmarks.machine import BenchmarkError, at_most, machine
from tests.benchmarks.offers import get, register_app
from tests.benchmarks.served_platform import ServedPlatform
from tests.federation.wires import Wire

SERVICES, QUICK_SERVICES = 5_000, 500
CHANGES = 500
APART_S, QUICK_APART_S = 60.0, 3.0
BOUND_S = 5.0
LONGEST_S = 60.0
LOOK_S = 0.02
AFTER_S = 12.0
"""How long they are watched once they agree: longer than it takes until digests are compared again."""


def run(*, quick: bool, apart_s: float | None = None) -> dict[str, Any]:
    """`quick` is with fewer services and apart for seconds; `apart_s` says for how long otherwise."""
    services = QUICK_SERVICES if quick else SERVICES
    apart_s = apart_s or (QUICK_APART_S if quick else APART_S)
    metrics: dict[str, float] = {"services": services, "changes": CHANGES, "apart_s": apart_s}
    for name, part in (("", Wire.cut), ("after_silence_", Wire.silence)):
        metrics |= {f"{name}{key}": value for key, value in uvloop.run(_measure(services, apart_s, part)).items()}
    return {"bench": "federation", "machine": machine(), "metrics": metrics, "criteria": criteria(metrics)}


def criteria(metrics: Mapping[str, float]) -> list[dict[str, object]]:
    """Of both kinds of partition."""
    return [
        at_most(f"{kind}{name}", metrics[f"{kind}{name}"], bound)
        for kind in ("", "after_silence_")
        for name, bound in (("converged_s", BOUND_S), ("lost", 0), ("resurrected", 0))
    ]


Seen: TypeAlias = tuple[str, int]
"""A service's version and state."""


@dataclass
class Watched:
    """What a watcher of a host sees of all services there, by id."""

    seen: dict[str, Seen] = field(default_factory=dict)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def follow(self, call: Any) -> None:
        async for reply in call:
            for change in reply.changes:
                service_id = change.service.service_id
                if change.kind == pb.CHANGE_KIND_REMOVED:
                    self.seen.pop(service_id, None)
                else:
                    description = change.service.description
                    self.seen[service_id] = description.version, description.state
            self.news.set()


class Side:
    """One host: its process, a stub, a watcher, and what its own services should be."""

    def __init__(self, name: str, platform: ServedPlatform, stub: Any) -> None:
        self.name = name
        self.platform = platform
        self.stub = stub
        self.watched = Watched()
        self.own: dict[str, str] = {}
        self.removed: set[str] = set()
        self.app_id = register_app(platform.rest).split("/applications/")[1].split("/")[0]

    async def register(self, count: int, version: str) -> None:
        request = pb.RegisterRequest(app_instance_id=self.app_id, description=_description(version))
        async for reply in self.stub.RegisterBulk(iter([request] * count)):
            if not reply.HasField("registered"):
                raise BenchmarkError(f"a registration was refused: {reply.refused.message}")
            self.own[reply.registered.service.service_id] = version

    async def change(self, count: int) -> None:
        """Spread over the services that were there before."""
        known = list(self.own)
        for number in range(count):
            match number % 5:
                case 0:
                    service_id = known.pop()
                    await self.stub.Deregister(pb.DeregisterRequest(service_id=service_id))
                    del self.own[service_id]
                    self.removed.add(service_id)
                case 1:
                    await self.register(1, "new")
                case _:
                    service_id, version = known[number % len(known)], f"changed {number}"
                    await self.stub.Update(pb.UpdateRequest(service_id=service_id, description=_description(version)))
                    self.own[service_id] = version

    @property
    def peer(self) -> dict[str, Any]:
        (peer,) = get(f"{self.platform.rest}/admin/v1/peers")
        return dict(peer)


def _description(version: str) -> pb.ServiceDescription:
    uris = pb.ServiceEndpoint.Texts(values=["http://127.0.0.1:9000/"])
    return pb.ServiceDescription(
        name="service",
        version=version,
        transport=pb.ServiceTransport(id="rest", endpoint=pb.ServiceEndpoint(uris=uris)),
        consumed_local_only=False,
        lease=pb.ServiceLease(interval_s=3600),
    )


async def _measure(services: int, apart_s: float, part: Callable[[Wire], None]) -> dict[str, float]:
    clock = asyncio.get_running_loop().time
    async with _two_hosts() as (sides, wires):
        begin_s = clock()
        await asyncio.gather(*(side.register(services, "1") for side in sides))
        await _until_agreed(sides)
        shared_s = clock() - begin_s
        for wire in wires:
            part(wire)
        begin_s = clock()
        await asyncio.gather(*(side.change(CHANGES) for side in sides))
        await asyncio.sleep(begin_s + apart_s - clock())
        for wire in wires:
            wire.heal()
        begin_s = clock()
        await _until_agreed(sides)
        converged_s = clock() - begin_s
        await asyncio.sleep(AFTER_S)
        return {
            "shared_first_s": round(shared_s, 2),
            "converged_s": round(converged_s, 3),
            "lost": _count_lost(sides),
            "resurrected": sum(len(side.removed & set(other.watched.seen)) for side in sides for other in sides),
            "listings": sum(sum(side.peer["listings"].values()) for side in sides),
            "mismatches": sum(side.peer["mismatches"] for side in sides),
        }


@asynccontextmanager
async def _two_hosts() -> AsyncIterator[tuple[list[Side], list[Wire]]]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mec-bench-")))
        wires = [Wire(), Wire()]
        for wire in wires:
            await wire.start()
            stack.push_async_callback(wire.stop)
        sides = []
        for name, other, own, to_other in (("a", "b", *wires), ("b", "a", *wires[::-1])):
            options = ("--host-name", name, "--peer", f"{other}={to_other.address}")
            start = asyncio.to_thread(ServedPlatform, folder / f"{name}.sqlite", 0, *options)
            platform = stack.enter_context(await start)
            grpc_address = platform.first_line.partition("grpc ")[2].partition(",")[0].strip()
            own.target = grpc_address
            stub = registry_pb2_grpc.ServiceRegistryStub(await stack.enter_async_context(open_channel(grpc_address)))
            sides.append(Side(name, platform, stub))
        async with asyncio.TaskGroup() as watchers:
            calls = [side.stub.Watch(pb.WatchRequest(list_first=True)) for side in sides]
            for side, call in zip(sides, calls, strict=True):
                watchers.create_task(side.watched.follow(call))
            try:
                yield sides, wires
            finally:
                for call in calls:
                    call.cancel()


async def _until_agreed(sides: list[Side]) -> None:
    """Returns when each watcher sees exactly what the owners have. Raises BenchmarkError where that takes too long."""
    expected = _expected(sides)
    for side in sides:
        try:
            async with asyncio.timeout(LONGEST_S):
                while side.watched.seen != expected:
                    side.watched.news.clear()
                    await side.watched.news.wait()
                    # Comparing ten thousand services at each change would be what is measured.
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            raise BenchmarkError(f"host {side.name} has not come to agree within {LONGEST_S:.0f} s") from None


def _expected(sides: Iterable[Side]) -> dict[str, Seen]:
    return {
        service_id: (version, pb.SERVICE_STATE_ACTIVE) for side in sides for service_id, version in side.own.items()
    }


def _count_lost(sides: list[Side]) -> int:
    """Services that a host does not have as their owner has them."""
    expected = _expected(sides)
    return sum(side.watched.seen.get(each) != wanted for side in sides for each, wanted in expected.items())


def main() -> None:
    """`python -m tests.benchmarks.federation`."""
    parser = argparse.ArgumentParser(description="How soon two hosts agree again that could not reach each other.")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--apart-s", type=float)
    arguments = parser.parse_args()
    sys.stdout.write(json.dumps(run(quick=arguments.quick, apart_s=arguments.apart_s), indent=2) + "\n")


if __name__ == "__main__":
    main()
