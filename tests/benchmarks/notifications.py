"""`mec bench notifications`: how long a notification is on its way, and whether one is lost when the platform is killed.

1,000 subscriptions, each to one of 100 names, so that each change is told to 10 of them; 100 changes a second, each a
service that is registered durably. Measured is the time until a target has the notification: from the moment the change was
sent, which includes the write to disk, and from the moment it was acknowledged. Then the same with one target among them
that never answers and one that is slow: the others must not notice. Platform, targets and client share the machine. At
last the platform is killed at random moments, and whatever was acknowledged must arrive all the same.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import uvloop

from tests.benchmarks.machine import BenchmarkError, at_most, machine
from tests.benchmarks.notification_kills import count_untold, register_under_kills
from tests.benchmarks.offers import get, make_offer, register_app
from tests.benchmarks.served_platform import ServedPlatform, ServerProcess

SUBSCRIPTIONS, NAMES = 1_000, 100
CHANGES_PER_S = 100
SECONDS, QUICK_SECONDS = 20.0, 3.0
P99_BOUND_MS = 200.0
LONGEST_WAY_S = 30.0

Times = Mapping[str, tuple[float, float]]
"""By instance id of a service: when it was sent and when it was acknowledged, in monotonic seconds."""


def run(*, quick: bool, kills: int) -> dict[str, Any]:
    """`quick` measures some seconds instead of half a minute."""
    metrics = measure(quick=quick, kills=kills)
    return {"bench": "notifications", "machine": machine(), "metrics": metrics, "criteria": criteria(metrics)}


def measure(*, quick: bool, kills: int) -> dict[str, float]:
    """Metrics of both rounds, and of a platform that is killed that many times."""
    seconds = QUICK_SECONDS if quick else SECONDS
    return {
        "subscriptions": SUBSCRIPTIONS,
        "changes_per_s": CHANGES_PER_S,
        **_measure_round("notification", seconds, spoilt=False),
        **_measure_round("notification_beside_dead_target", seconds, spoilt=True),
        **_measure_kills(kills),
    }


def criteria(metrics: Mapping[str, float]) -> list[dict[str, object]]:
    """Of the times, the one that includes the write is held to the bound."""
    return [
        at_most("notification_p99_ms", metrics["notification_p99_ms"], P99_BOUND_MS),
        at_most(
            "notification_beside_dead_target_p99_ms", metrics["notification_beside_dead_target_p99_ms"], P99_BOUND_MS
        ),
        at_most("notification_missing", metrics["notification_missing"], 0),
        at_most("notification_beside_dead_target_missing", metrics["notification_beside_dead_target_missing"], 0),
        at_most("notifications_lost_by_kills", metrics["notifications_lost_by_kills"], 0),
    ]


def _measure_kills(kills: int) -> dict[str, float]:
    with ServerProcess("tests.benchmarks.callback_targets") as targets:
        target = f"http://127.0.0.1:{json.loads(targets.first_line)['quick'][0]}/"
        acknowledged = register_under_kills(target, kills, random.Random(0)).acknowledged
        arrived = get(target)
    return {
        "notification_kills": kills,
        "notified_changes": len(acknowledged),
        "notifications_lost_by_kills": count_untold(acknowledged, arrived),
        "notifications_repeated_by_kills": len(arrived) - len({service for _, _, service in arrived}),
    }


def _measure_round(name: str, seconds: float, *, spoilt: bool) -> dict[str, float]:
    with (
        tempfile.TemporaryDirectory(prefix="mec-bench-") as folder,
        ServerProcess("tests.benchmarks.callback_targets") as targets,
        ServedPlatform(Path(folder) / "notifications.sqlite") as platform,
    ):
        ports = json.loads(targets.first_line)
        callbacks = [f"http://127.0.0.1:{ports['quick'][n % len(ports['quick'])]}/{n}" for n in range(SUBSCRIPTIONS)]
        if spoilt:
            callbacks[0] = f"http://127.0.0.1:{ports['dead']}/0"
            callbacks[1] = f"http://127.0.0.1:{ports['late']}/1"
        expected = SUBSCRIPTIONS // NAMES * int(seconds * CHANGES_PER_S)
        if spoilt:
            expected -= 2 * int(seconds * CHANGES_PER_S) // NAMES
        times = uvloop.run(_change(platform.rest, callbacks, seconds))
        arrived = _await_arrivals(f"http://127.0.0.1:{ports['quick'][0]}/", expected, spoilt)
    return _judge(name, times, arrived, expected)


async def _change(rest: str, callbacks: Iterable[str], seconds: float) -> Times:
    services = register_app(rest)
    times: dict[str, tuple[float, float]] = {}
    async with aiohttp.ClientSession(rest) as session, asyncio.TaskGroup() as changes:
        for number, callback in enumerate(callbacks):
            subscription = {
                "subscriptionType": "SerAvailabilityNotificationSubscription",
                "callbackReference": callback,
                "filteringCriteria": {"serNames": [f"name-{number % NAMES}"]},
            }
            await _post(session, services.replace("/services", "/subscriptions"), subscription)
        begin_s = asyncio.get_running_loop().time()
        for number in range(int(seconds * CHANGES_PER_S)):
            await asyncio.sleep(begin_s + number / CHANGES_PER_S - asyncio.get_running_loop().time())
            changes.create_task(_register(session, services, f"name-{number % NAMES}", times))
    return times


async def _register(
    session: aiohttp.ClientSession, path: str, name: str, times: dict[str, tuple[float, float]]
) -> None:
    sent_s = time.monotonic()
    service = await _post(session, path, make_offer(name))
    times[service["serInstanceId"]] = sent_s, time.monotonic()


async def _post(session: aiohttp.ClientSession, path: str, body: Mapping[str, Any]) -> Any:
    async with session.post(path, json=body) as answer:
        if answer.status != 201:
            raise BenchmarkError(f"POST {path} was answered with {answer.status}: {await answer.text()}")
        return await answer.json()


def _await_arrivals(control: str, expected: int, spoilt: bool) -> list[tuple[float, str, str]]:
    """What has come to targets that answer at once."""
    deadline_s = time.monotonic() + LONGEST_WAY_S
    while True:
        arrived = [each for each in get(control) if not (spoilt and each[1] in ("/0", "/1"))]
        if len(arrived) >= expected or time.monotonic() > deadline_s:
            return arrived
        time.sleep(0.1)


def _judge(name: str, times: Times, arrived: list[tuple[float, str, str]], expected: int) -> dict[str, float]:
    since_sent = [(at_s - times[service][0]) * 1e3 for at_s, _, service in arrived]
    since_acknowledged = [(at_s - times[service][1]) * 1e3 for at_s, _, service in arrived]
    repeated = sum(Counter((path, service) for _, path, service in arrived).values()) - len(
        {(path, service) for _, path, service in arrived}
    )
    return {
        f"{name}_p50_ms": _percentile(since_sent, 50),
        f"{name}_p99_ms": _percentile(since_sent, 99),
        f"{name}_after_acknowledgement_p50_ms": _percentile(since_acknowledged, 50),
        f"{name}_after_acknowledgement_p99_ms": _percentile(since_acknowledged, 99),
        f"{name}_missing": expected - (len(arrived) - repeated),
        f"{name}_repeated": repeated,
    }


def _percentile(values: list[float], percent: int) -> float:
    if len(values) < 100:
        raise BenchmarkError(f"only {len(values)} notifications arrived")
    return round(statistics.quantiles(values, n=100)[percent - 1], 2)
