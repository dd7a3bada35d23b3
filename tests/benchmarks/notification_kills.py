"""A platform that is killed at random moments while services are registered, again and again: what of it is lost?

Whatever was acknowledged must be there after the restart, and must arrive at its callback sooner or later, through whichever
life of the platform. Repetitions are allowed, and counted.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from mec_platform.background import BackgroundTasks
from tests.benchmarks.offers import get, make_offer, register_app
from tests.benchmarks.served_platform import ServedPlatform

CLIENTS = 8
LEAST_LIFE_S, MOST_LIFE_S = 0.05, 0.4


@dataclass(frozen=True, slots=True)
class Written:
    """Ids of services whose registration was acknowledged by one of the lives, and of those that a later one did not have."""

    acknowledged: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)


def register_under_kills(callback: str, kills: int, choices: random.Random, clients: int = CLIENTS) -> Written:
    """Registers with that many clients at a time, each with a subscriber of its own; all lives end before it returns.

    Each life has an application instance, whose services are asked for after the restart and again in the last life.
    """
    written, lives = Written(), dict[str, set[str]]()
    with tempfile.TemporaryDirectory(prefix="mec-bench-") as folder:
        state = Path(folder) / "killed.sqlite"
        platform = ServedPlatform(state)
        asyncio.run(_subscribe(platform.rest, register_app(platform.rest), callback, clients))
        for _ in range(kills):
            services, life_s = register_app(platform.rest), choices.uniform(LEAST_LIFE_S, MOST_LIFE_S)
            lives[services] = asyncio.run(_register_and_kill(platform, services, life_s, clients))
            platform = ServedPlatform(state, platform.port)
            _check(platform.rest, services, lives[services], written)
        with platform:
            for services, acknowledged in lives.items():
                _check(platform.rest, services, acknowledged, written)
            asyncio.run(_await_empty_outboxes(platform.rest))
    return written


def _check(rest: str, services: str, acknowledged: set[str], written: Written) -> None:
    written.acknowledged.update(acknowledged)
    written.lost.update(acknowledged - {each["serInstanceId"] for each in get(f"{rest}{services}")})


async def _subscribe(rest: str, services: str, callback: str, clients: int) -> None:
    async with aiohttp.ClientSession(rest, raise_for_status=True) as session:
        for number in range(clients):
            subscription = {
                "subscriptionType": "SerAvailabilityNotificationSubscription",
                "callbackReference": f"{callback}{number}",
                "filteringCriteria": {"serNames": [f"client-{number}"]},
            }
            await session.post(services.replace("/services", "/subscriptions"), json=subscription)


async def _register_and_kill(platform: ServedPlatform, services: str, life_s: float, clients: int) -> set[str]:
    acknowledged: set[str] = set()
    async with aiohttp.ClientSession(platform.rest, raise_for_status=True) as session, BackgroundTasks() as tasks:
        under_way = [
            tasks.start(f"client-{n}", _register(session, services, f"client-{n}", acknowledged))
            for n in range(clients)
        ]
        await asyncio.sleep(life_s)
        platform.kill()
        await asyncio.gather(*under_way)
    return acknowledged


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
