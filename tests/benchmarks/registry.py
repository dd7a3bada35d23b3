"""`mec bench registry`: the service registry over gRPC, against a handler that does nothing and against etcd itself.

Rates are ratios to their limits, measured in turns with the same clients: what grpc.aio reaches with a handler that does
nothing, and what a local etcd takes of durable puts through its own API. The platform is `mec serve` with its state on
disk. A closed loop of 32 clients keeps one Python process busy all the time, so there a time is that of a queue; what a
query takes beside others that come at a rate is told as well (`discover_open`).
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from mec_platform.rpc.etcd import etcd_pb2
from mec_platform.rpc.v1 import registry_pb2 as pb
from tests.benchmarks import empty_grpc_server, federation
from tests.benchmarks.grpc_load import GENERATORS, Calls, put_calls
from tests.benchmarks.machine import BenchmarkError, at_least, at_most, cpu_s, machine, resident_mib
from tests.benchmarks.offers import register_app
from tests.benchmarks.registry_kills import Survived, kill_over_etcd, kill_over_sqlite
from tests.benchmarks.registry_offers import (
    HEARTBEATS_AT_ONCE,
    LONGEST_LEASE_S,
    NAMES,
    QUERY,
    RENEWAL_S,
    SERVICE,
    discover,
    make_heartbeats,
    make_registration,
    read_revision,
    register_many,
    renew_all,
    renew_evenly,
)
from tests.benchmarks.registry_watchers import measure_delays, measure_expiry, quantile
from tests.benchmarks.served_platform import EmptyGrpcServer, ServedPlatform
from tests.benchmarks.turns import Load, compare
from tests.registry.etcd_cluster import ETCD, running_cluster

SERVICES = 10_000
READERS, REGISTRARS, STREAMS = 32, 64, 4
OPEN_PER_S = 200.0
LIMITS = {"get": "empty"}
ETCD_LIMITS = {"registrations": "etcd_puts", "bulk_registrations": "etcd_puts", "etcd_registrations": "etcd_puts"}
_PUT = "/etcdserverpb.KV/Put"
_NO_QUOTA = ("--services-per-app", 10_000_000)


@dataclass(frozen=True, slots=True)
class Extent:
    """How much of it is measured."""

    warm_ups: int
    turns: int
    turn_s: float
    renewals_s: float
    started_services: int
    changes: int
    silent: int
    kills: int


FULL = Extent(
    warm_ups=1, turns=7, turn_s=2.0, renewals_s=15.0, started_services=100_000, changes=20, silent=20, kills=100
)
QUICK = Extent(warm_ups=0, turns=1, turn_s=1.0, renewals_s=2.0, started_services=10_000, changes=5, silent=5, kills=5)


@dataclass(frozen=True, slots=True)
class _Case:
    calls: Calls
    server_pid: int | None = None


@dataclass(slots=True)
class _Measured:
    loads: dict[str, list[Load]] = field(default_factory=lambda: defaultdict(list))
    cpu_us: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))


def run(*, quick: bool) -> dict[str, Any]:
    """`quick` measures under a minute instead of some ten."""
    metrics = measure(QUICK if quick else FULL)
    shared = federation.run(quick=quick)
    judged = [*criteria(metrics), *(each | {"name": f"federation_{each['name']}"} for each in shared["criteria"])]
    metrics |= {f"federation_{name}": value for name, value in shared["metrics"].items()}
    return {"bench": "registry", "machine": machine(), "metrics": metrics, "criteria": judged}


def measure(extent: Extent) -> dict[str, float]:
    """Metrics of everything; those of etcd where there is an etcd (`etcd_measured`)."""
    return {
        "services": SERVICES,
        "etcd_measured": int(ETCD is not None),
        "load_generators": GENERATORS,
        **_measure_calls(extent),
        **_measure_start(extent.started_services),
        **_measure_watches(extent),
        **_measure_kills(extent.kills),
    }


def criteria(metrics: Mapping[str, float]) -> list[dict[str, object]]:
    """Those of what was measured."""
    started = next(int(name.split("_")[1]) for name in metrics if name.startswith("start_"))
    found = [
        at_most("discover_p50_ms", metrics["discover_p50_ms"], 10),
        at_most("discover_p99_ms", metrics["discover_p99_ms"], 25),
        at_least("get_of_empty", metrics["get_of_empty"], 0.5),
        at_most("renewals_cpu_percent", metrics["renewals_cpu_percent"], 15),
        at_most("renewals_appended", metrics["renewals_appended"], 0),
        at_most(f"start_{started}_s", metrics[f"start_{started}_s"], 10),
        at_most(f"start_{started}_mib", metrics[f"start_{started}_mib"], 1024),
        at_most("watch_p99_ms", metrics["watch_p99_ms"], 100),
        at_most("expiry_s", metrics["expiry_s"], 2),
        *(at_most(name, metrics[name], 0) for name in metrics if name.endswith(("_lost", "_doubled", "_complaints"))),
    ]
    if metrics["etcd_measured"]:
        least = {"registrations": 0.8, "bulk_registrations": 3.0, "etcd_registrations": 0.6}
        found += [
            at_least(f"{name}_of_etcd_puts", metrics[f"{name}_of_etcd_puts"], each) for name, each in least.items()
        ]
    return found


# Reads, writes and renewals: one platform with 10,000 services


def _measure_calls(extent: Extent) -> dict[str, float]:
    measured = _Measured()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mec-bench-")))
        platform = stack.enter_context(ServedPlatform(folder / "registry.sqlite", 0, *_NO_QUOTA))
        empty = stack.enter_context(EmptyGrpcServer())
        app_instance_id = register_app(platform.rest).split("/")[-2]
        ids = uvloop.run(register_many(platform.grpc, app_instance_id, SERVICES))
        uvloop.run(_check_query(platform.grpc, ids))
        renewals = _measure_renewals(platform, ids, extent.renewals_s)
        beats = make_heartbeats(ids)
        reads = _reads(platform, empty, ids, extent.turn_s)
        for turn in range(-extent.warm_ups, extent.turns):
            uvloop.run(renew_all(platform.grpc, beats))
            _take_turn(reads, measured if turn >= 0 else _Measured())
        writes = _writes(platform, app_instance_id, extent.turn_s)
        if ETCD is not None:
            writes |= stack.enter_context(_etcd_writes(folder, extent.turn_s))
        for turn in range(-extent.warm_ups, extent.turns):
            _take_turn(writes, measured if turn >= 0 else _Measured())
    limits = LIMITS | (ETCD_LIMITS if ETCD is not None else {})
    costs = {f"{name}_server_us": round(statistics.median(each), 1) for name, each in measured.cpu_us.items()}
    return {**compare(measured.loads, limits), **costs, **renewals}


def _take_turn(cases: Mapping[str, _Case], measured: _Measured) -> None:
    for name, case in cases.items():
        before_s = cpu_s(case.server_pid) if case.server_pid else 0.0
        load = put_calls(case.calls)
        measured.loads[name].append(load)
        if case.server_pid:
            answers = load.per_s * case.calls.seconds
            measured.cpu_us[name].append((cpu_s(case.server_pid) - before_s) / answers * 1e6)


async def _check_query(address: str, ids: Sequence[str]) -> None:
    await renew_all(address, make_heartbeats(ids))
    answer = await discover(address, QUERY)
    looked_at = answer.matched + sum(answer.rejected.values())
    if looked_at != SERVICES // NAMES or not 0 < len(answer.candidates) == answer.matched < looked_at:
        raise BenchmarkError(f"discovery looked at {looked_at} services and found {answer.matched}")


def _reads(platform: ServedPlatform, empty: EmptyGrpcServer, ids: Sequence[str], seconds: float) -> dict[str, _Case]:
    def ours(method: str, requests: Sequence[bytes], rate_per_s: float | None = None) -> _Case:
        calls = Calls(
            address=platform.grpc,
            method=f"{SERVICE}/{method}",
            requests=requests,
            clients=READERS,
            seconds=seconds,
            rate_per_s=rate_per_s,
        )
        return _Case(calls, platform.pid)

    # As many bytes as a service has.
    record = b"%d" % (len(make_registration("", 0).SerializeToString()) + 150)
    nothing = Calls(
        address=empty.address, method=empty_grpc_server.METHOD, requests=[record], clients=READERS, seconds=seconds
    )
    query = QUERY.SerializeToString()
    return {
        "empty": _Case(nothing, empty.pid),
        "get": ours("Get", [pb.GetRequest(service_id=each).SerializeToString() for each in ids]),
        "discover": ours("Discover", [query]),
        "discover_open": ours("Discover", [query], OPEN_PER_S),
    }


def _registrations(address: str, app_instance_id: str, seconds: float, *, streams: bool = False) -> Calls:
    requests = [make_registration(app_instance_id, number).SerializeToString() for number in range(1000)]
    return Calls(
        address=address,
        method=f"{SERVICE}/{'RegisterBulk' if streams else 'Register'}",
        requests=requests,
        clients=STREAMS if streams else REGISTRARS,
        seconds=seconds,
        streams=streams,
    )


def _writes(platform: ServedPlatform, app_instance_id: str, seconds: float) -> dict[str, _Case]:
    return {
        "registrations": _Case(_registrations(platform.grpc, app_instance_id, seconds), platform.pid),
        "bulk_registrations": _Case(
            _registrations(platform.grpc, app_instance_id, seconds, streams=True), platform.pid
        ),
    }


@contextmanager
def _etcd_writes(folder: Path, seconds: float) -> Iterator[dict[str, _Case]]:
    with running_cluster(folder) as cluster:
        cluster.wait_until_up()
        value = make_registration("", 0).SerializeToString()
        puts = [etcd_pb2.PutRequest(key=b"put/%d" % each, value=value).SerializeToString() for each in range(10_000)]
        calls = Calls(address=cluster.endpoints[0], method=_PUT, requests=puts, clients=REGISTRARS, seconds=seconds)
        with ServedPlatform(str(cluster.settings()), 0, *_NO_QUOTA) as platform:
            app_instance_id = register_app(platform.rest).split("/")[-2]
            registrations = _registrations(platform.grpc, app_instance_id, seconds)
            yield {"etcd_puts": _Case(calls), "etcd_registrations": _Case(registrations, platform.pid)}


def _measure_renewals(platform: ServedPlatform, ids: Sequence[str], seconds: float) -> dict[str, float]:
    found: dict[str, float] = {"renewals_at_once": HEARTBEATS_AT_ONCE, "renewals_per_s": len(ids) / RENEWAL_S}
    before = uvloop.run(read_revision(platform.grpc))
    for name, at_once in (("renewals", HEARTBEATS_AT_ONCE), ("renewals_one_by_one", 1)):
        beats = make_heartbeats(ids, at_once)
        used_s, began_s = cpu_s(platform.pid), time.perf_counter()
        uvloop.run(renew_evenly(platform.grpc, beats, len(ids) / RENEWAL_S / at_once, seconds))
        took_s = time.perf_counter() - began_s
        found[f"{name}_cpu_percent"] = round((cpu_s(platform.pid) - used_s) / took_s * 100, 2)
    found["renewals_appended"] = uvloop.run(read_revision(platform.grpc)) - before
    return found


# Each with platforms of its own


def _measure_start(services: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="mec-bench-") as folder:
        state = Path(folder) / "started.sqlite"
        with ServedPlatform(state, 0, *_NO_QUOTA) as platform:
            app_instance_id = register_app(platform.rest).split("/")[-2]
            uvloop.run(register_many(platform.grpc, app_instance_id, services, LONGEST_LEASE_S))
            platform.kill()
        began_s = time.perf_counter()
        with ServedPlatform(state, 0, *_NO_QUOTA) as platform:
            return {
                f"start_{services}_s": round(time.perf_counter() - began_s, 2),
                f"start_{services}_mib": round(resident_mib(platform.pid), 1),
            }


def _measure_watches(extent: Extent) -> dict[str, float]:
    with (
        tempfile.TemporaryDirectory(prefix="mec-bench-") as folder,
        ServedPlatform(Path(folder) / "watched.sqlite") as platform,
    ):
        app_instance_id = register_app(platform.rest).split("/")[-2]
        # Beside those that live on, so that it does not look as if all had fallen silent.
        uvloop.run(register_many(platform.grpc, app_instance_id, 20 * extent.silent))
        expiries_s = uvloop.run(measure_expiry(platform.grpc, app_instance_id, extent.silent))
        delays_s = measure_delays(platform.grpc, app_instance_id, extent.changes)
    return {
        "expiry_s": round(max(expiries_s), 3),
        "watch_p50_ms": round(quantile(delays_s, 50) * 1e3, 1),
        "watch_p99_ms": round(quantile(delays_s, 99) * 1e3, 1),
    }


def _measure_kills(kills: int) -> dict[str, float]:
    found: dict[str, float] = {"kills": kills}
    found |= _name("sqlite", kill_over_sqlite(kills, random.Random(0)))
    if ETCD is not None:
        found |= _name("etcd", kill_over_etcd(kills, random.Random(0)))
    return found


def _name(store: str, survived: Survived) -> dict[str, float]:
    return {
        f"{store}_acknowledged": survived.acknowledged,
        f"{store}_lost": survived.lost,
        f"{store}_doubled": survived.doubled,
        f"{store}_watch_complaints": len(survived.complaints),
        f"{store}_watch_relisted": survived.relisted,
    }
