"""Services of the registry's benchmarks as gRPC messages: many services under some names, with capabilities and KPIs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Sequence

from mec_platform.background import BackgroundTasks
from mec_platform.rpc.endpoints import open_channel
from mec_platform.rpc.v1 import registry_pb2 as pb
from mec_platform.rpc.v1.registry_pb2_grpc import ServiceRegistryStub
from mec_platform.rpc.v1.types_pb2 import LayerRange
from tests.benchmarks.machine import BenchmarkError

SERVICE = "/mec_platform.rpc.v1.ServiceRegistry"
NAMES = 100
RENEWAL_S = 30
LEASE_S = 2 * RENEWAL_S
"""As `RenewReply` has it: renewed at half of it."""

LONGEST_LEASE_S = 3600
"""For services that nobody renews."""

HEARTBEATS_AT_ONCE = 100
"""As who renews for the services of one site, or a gateway for those behind it."""

QUERY = pb.DiscoveryQuery(
    names=["name-7"],
    condition="kpi.load < 0.8 && service.trust_level >= 1",
    preferences=[
        pb.Preference(measure="load", direction=pb.DIRECTION_MINIMISE),
        pb.Preference(measure="tokens_per_s", direction=pb.DIRECTION_MAXIMISE, weight=2),
        pb.Preference(measure="rtt_ms", direction=pb.DIRECTION_MINIMISE),
    ],
)


def make_registration(app_instance_id: str, number: int, **more: str) -> pb.RegisterRequest:
    """A service of the name that its number has, which runs some blocks of a model."""
    start = number % 4 * 8
    return pb.RegisterRequest(
        app_instance_id=app_instance_id,
        description=pb.ServiceDescription(
            name=f"name-{number % NAMES}",
            version="1.0",
            transport=pb.ServiceTransport(
                id="grpc",
                name="inference",
                protocol="gRPC",
                version="2.0",
                endpoint=pb.ServiceEndpoint(
                    addresses=pb.ServiceEndpoint.Addresses(
                        values=[pb.ServiceAddress(host=f"10.0.{number >> 8 & 255}.{number & 255}", port=50051)]
                    )
                ),
            ),
            category=pb.ServiceCategory(
                href="http://example.com/inference", id="inference", name="Inference", version="1.0"
            ),
            capabilities=pb.ServiceCapabilities(
                model="llama-3.2-1b",
                layers=LayerRange(start=start, stop=start + 8),
                quantisation="int4",
                hardware_target="x86-64-v4",
                trust_level=number % 3,
                labels={"zone": f"zone-{number % 8}"},
            ),
            lease=pb.ServiceLease(interval_s=LEASE_S),
        ),
        **more,
    )


def make_heartbeats(service_ids: Sequence[str], at_once: int = HEARTBEATS_AT_ONCE) -> list[pb.RenewRequest]:
    """Renewals of all of these with KPIs, so many in one message."""
    choices = random.Random(0)
    beats = [
        pb.ServiceHeartbeat(
            service_id=each,
            kpis=pb.ServiceKpis(
                load=choices.random(),
                capacity=16,
                free_memory_bytes=choices.randrange(1 << 34),
                tokens_per_s=choices.uniform(5, 80),
                rtt_ms=choices.uniform(1, 40),
            ),
        )
        for each in service_ids
    ]
    return [pb.RenewRequest(heartbeats=beats[start : start + at_once]) for start in range(0, len(beats), at_once)]


async def register_many(address: str, app_instance_id: str, count: int, lease_s: int = LEASE_S) -> list[str]:
    """Registers so many on one stream; their ids, in order.

    Raises:
        BenchmarkError: one was refused.
    """
    async with open_channel(address) as channel, BackgroundTasks() as tasks:
        stream = ServiceRegistryStub(channel).RegisterBulk()

        async def write() -> None:
            for number in range(count):
                request = make_registration(app_instance_id, number)
                request.description.lease.interval_s = lease_s
                await stream.write(request)
            await stream.done_writing()

        tasks.start("registrations", write())
        return [_registered(reply) async for reply in stream]


async def renew_all(address: str, requests: Iterable[pb.RenewRequest]) -> None:
    """Sends these renewals, one after the other.

    Raises:
        BenchmarkError: a service is unknown, or its KPIs were not taken.
    """
    async with open_channel(address) as channel:
        stream = ServiceRegistryStub(channel).Renew()
        for request in requests:
            await stream.write(request)
            reply = await stream.read()
            if reply.unknown_ids or reply.ignored_kpis:
                raise BenchmarkError(f"{len(reply.unknown_ids)} services of a renewal are unknown")
        await stream.done_writing()
        await stream.read()


async def renew_evenly(address: str, requests: Sequence[pb.RenewRequest], rate_per_s: float, seconds: float) -> None:
    """Sends these renewals over and over on one stream, so many messages a second."""
    loop = asyncio.get_running_loop()
    async with open_channel(address) as channel:
        stream = ServiceRegistryStub(channel).Renew()
        begin_s = loop.time()
        for number in range(round(rate_per_s * seconds)):
            await asyncio.sleep(begin_s + number / rate_per_s - loop.time())
            await stream.write(requests[number % len(requests)])
            await stream.read()
        await stream.done_writing()
        await stream.read()


async def read_revision(address: str) -> int:
    """At which the registry is."""
    async with open_channel(address) as channel:
        answer = await ServiceRegistryStub(channel).Discover(pb.DiscoveryQuery(names=["nobody"]))
        return int(answer.revision)


def _registered(reply: pb.RegisterBulkReply) -> str:
    if reply.HasField("refused"):
        raise BenchmarkError(f"a registration was refused: {reply.refused.reason} {reply.refused.message}")
    return reply.registered.service.service_id


async def discover(address: str, query: pb.DiscoveryQuery) -> pb.Ranking:
    """The answer to a query."""
    async with open_channel(address) as channel:
        answer: pb.Ranking = await ServiceRegistryStub(channel).Discover(query)
        return answer
