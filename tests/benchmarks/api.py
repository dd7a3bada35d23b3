"""`mec bench api`: the rates of Mp1 over REST, and whether a kill -9 loses anything that was acknowledged.

What aiohttp reaches with handlers that do nothing is the limit of any API on it, so rates are ratios to that: measured in
turns with the same client, server and client on two cores of the same machine, and compared turn by turn. The platform is
`mec serve` with its state on disk, and has 10,000 services: each registration is on the disk before it is acknowledged.
"""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from tests.benchmarks.http_load import Load, put_load, wrk
from tests.benchmarks.machine import BenchmarkError, at_least, at_most, machine
from tests.benchmarks.notification_kills import count_untold, register_under_kills
from tests.benchmarks.offers import get, make_offer, register_app
from tests.benchmarks.served_platform import LimitServer, ServedPlatform, ServerProcess
from tests.benchmarks.turns import Turns, compare

SERVICES, NAMES = 10_000, 100
READERS, LISTERS, REGISTRARS = 16, 64, 64
TURNS, QUICK_TURNS = 9, 2
TURN_S, QUICK_TURN_S = 2.0, 1.0
LEAST_RATIO = 0.5
LIST_P99_BOUND_MS = 25.0

LIMITS = {"get": "empty_get", "list": "empty_list", "registrations": "empty_post"}


@dataclass(frozen=True, slots=True)
class _Case:
    url: str
    connections: int
    body: str | None = None


def run(*, quick: bool, kills: int) -> dict[str, Any]:
    """`quick` measures some seconds instead of two minutes."""
    metrics = measure(quick=quick, kills=kills)
    return {"bench": "api", "machine": machine(), "metrics": metrics, "criteria": criteria(metrics)}


def measure(*, quick: bool, kills: int) -> dict[str, float]:
    """Metrics of reading and registering, and of a platform that is killed that many times."""
    turns, turn_s = (QUICK_TURNS, QUICK_TURN_S) if quick else (TURNS, TURN_S)
    return {
        "services": SERVICES,
        "client_is_wrk": int(wrk() is not None),
        **compare(_measure_turns(turns, turn_s), LIMITS),
        **_measure_kills(kills),
    }


def criteria(metrics: Mapping[str, float]) -> list[dict[str, object]]:
    """Rates are held to the limit's, the list to milliseconds, and of what was acknowledged nothing may be missing."""
    return [
        at_least("get_of_empty_get", metrics["get_of_empty_get"], LEAST_RATIO),
        at_most("list_p99_ms", metrics["list_p99_ms"], LIST_P99_BOUND_MS),
        at_least("registrations_of_empty_post", metrics["registrations_of_empty_post"], LEAST_RATIO),
        at_most("lost", metrics["lost"], 0),
        at_most("notifications_lost", metrics["notifications_lost"], 0),
    ]


def _measure_turns(turns: int, turn_s: float) -> Turns:
    measured: dict[str, list[Load]] = defaultdict(list)
    with (
        tempfile.TemporaryDirectory(prefix="mec-bench-") as folder,
        LimitServer() as limit,
        ServedPlatform(Path(folder) / "api.sqlite", 0, "--services-per-app", 10_000_000) as platform,
    ):
        # Registrations come last, so that lists and reads see the services that the metrics name.
        reads, writes = _prepare(platform.rest, f"http://127.0.0.1:{limit.port}")
        for cases in (reads, writes):
            for turn in range(turns + 1):
                for name, case in cases.items():
                    load = put_load(case.url, case.connections, turn_s, case.body)
                    if turn > 0:  # the first one warms up
                        measured[name].append(load)
    return measured


def _prepare(rest: str, limit: str) -> tuple[dict[str, _Case], dict[str, _Case]]:
    services = register_app(rest)
    asyncio.run(_register_services(rest, services))
    one_list = f"{rest}/mec_service_mgmt/v1/services?ser_name=name-7"
    listed = get(one_list)
    if len(listed) != SERVICES // NAMES:
        raise BenchmarkError(f"a list that should have {SERVICES // NAMES} services has {len(listed)}")
    list_bytes = len(json.dumps(listed, separators=(",", ":")))
    offer = json.dumps(make_offer("registered"))
    reads = {
        "empty_get": _Case(f"{limit}/nothing", READERS),
        "get": _Case(f"{rest}/mec_service_mgmt/v1/services/{listed[0]['serInstanceId']}", READERS),
        "empty_list": _Case(f"{limit}/bytes/{list_bytes}", LISTERS),
        "list": _Case(one_list, LISTERS),
    }
    writes = {
        "empty_post": _Case(f"{limit}/nothing", REGISTRARS, offer),
        "registrations": _Case(f"{rest}{services}", REGISTRARS, offer),
    }
    return reads, writes


async def _register_services(rest: str, services: str) -> None:
    async def register(first: int) -> None:
        for number in range(first, SERVICES, REGISTRARS):
            await session.post(services, json=make_offer(f"name-{number % NAMES}"))

    async with aiohttp.ClientSession(rest, raise_for_status=True) as session, asyncio.TaskGroup() as registrars:
        for first in range(REGISTRARS):
            registrars.create_task(register(first))


def _measure_kills(kills: int) -> dict[str, float]:
    with ServerProcess("tests.benchmarks.callback_targets") as targets:
        target = f"http://127.0.0.1:{json.loads(targets.first_line)['quick'][0]}/"
        written = register_under_kills(target, kills, random.Random(0), REGISTRARS)
        arrived = get(target)
    return {
        "kills": kills,
        "acknowledged": len(written.acknowledged),
        "lost": len(written.lost),
        "notifications_lost": count_untold(written.acknowledged, arrived),
        "repeated": len(arrived) - len({service for _, _, service in arrived}),
    }
