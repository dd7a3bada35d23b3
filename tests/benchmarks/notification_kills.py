"""A platform that is killed at random moments while services are registered, again and again: is every subscriber told?

Whatever was acknowledged must arrive at its callback sooner or later, through whichever life of the platform. Repetitions
are allowed, and counted.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

import aiohttp

from mec_platform.background import BackgroundTasks
from tests.benchmarks.offers import make_offer, register_app
from tests.benchmarks.served_platform import ServedPlatform

CLIENTS = 8
LEAST_LIFE_S, MOST_LIFE_S = 0.05, 0.4


def register_under_kills(callback: str, kills: int, choices: random.Random) -> set[str]:
    """Ids of the services whose registration was acknowledged by one of the lives; all of them end before it returns."""
    acknowledged: set[str] = set()
    with tempfile.TemporaryDirectory(prefix="mec-bench-") as folder:
        state = Path(folder) / "killed.sqlite"
        platform = ServedPlatform(state)
        services = register_app(platform.rest)
        asyncio.run(_subscribe(platform.rest, services, callback))
        for _ in range(kills):
            asyncio.run(
                _register_and_kill(platform, services, acknowledged, choices.uniform(LEAST_LIFE_S, MOST_LIFE_S))
            )
            platform = ServedPlatform(state, platform.port)
        with platform:
            asyncio.run(_await_empty_outboxes(platform.rest))
    return acknowledged


async def _subscribe(rest: str, services: str, callback: str) -> None:
    async with aiohttp.ClientSession(rest, raise_for_status=True) as session:
        for number in range(CLIENTS):
            subscription = {
                "subscriptionType": "SerAvailabilityNotificationSubscription",
                "callbackReference": f"{callback}{number}",
                "filteringCriteria": {"serNames": [f"client-{number}"]},
            }
            await session.post(services.replace("/services", "/subscriptions"), json=subscription)


async def _register_and_kill(platform: ServedPlatform, services: str, acknowledged: set[str], life_s: float) -> None:
    async with aiohttp.ClientSession(platform.rest, raise_for_status=True) as session, BackgroundTasks() as tasks:
        clients = [
            tasks.start(f"client-{n}", _register(session, services, f"client-{n}", acknowledged))
            for n in range(CLIENTS)
        ]
        await asyncio.sleep(life_s)
        platform.kill()
        await asyncio.gather(*clients)


async def _register(session: aiohttp.ClientSession, services: str, name: str, acknowledged: set[str]) -> None:
    try:
        while True:
            async with session.post(services, json=make_offer(name)) as answer:
                acknowledged.add((await answer.json())["serInstanceId"])
    except aiohttp.ClientError:
        return


async def _await_empty_outboxes(rest: str) -> None:
    async with aiohttp.ClientSession(rest, raise_for_status=True) as session:
        while True:
            async with session.get("/metrics") as answer:
                if "\nmec_notification_waiting 0.0\n" in await answer.text():
                    return
            await asyncio.sleep(0.1)


def count_untold(acknowledged: set[str], arrived: Sequence[tuple[float, str, str]]) -> int:
    """Acknowledged changes that no callback has been told of."""
    return len(acknowledged - {service for _, _, service in arrived})
