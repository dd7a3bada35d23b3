"""Platforms that are killed at random moments while services are registered and watched: is anything lost of the registry?

In the end the audit trail says what has happened: every watcher has to have seen that, in order and each change once, and
whatever was acknowledged has to be there, once.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import uvloop

from mec_platform.domain.subscriptions import ChangeType
from mec_platform.registry.etcd.settings import EtcdSettings
from mec_platform.registry.registry import STREAM
from mec_platform.registry.store import open_store
from tests.benchmarks.offers import register_app
from tests.benchmarks.registry_crowd import Client, Watcher, act_until_killed, list_services, until, watch_up_to
from tests.benchmarks.registry_offers import read_revision
from tests.benchmarks.served_platform import ServedPlatform
from tests.registry.etcd_cluster import running_cluster
from tests.registry.histories import Seen, complaints

CLIENTS, WATCHERS = 8, 4
LEAST_LIFE_S, MOST_LIFE_S = 0.05, 0.4
_ALL = 1 << 31


@dataclass(frozen=True, slots=True)
class Survived:
    """What came of it. `relisted`: how often a watcher was told that changes were dropped, and listed again."""

    acknowledged: int
    lost: int
    doubled: int
    complaints: Sequence[str]
    relisted: int


def kill_over_sqlite(kills: int, choices: random.Random) -> Survived:
    """One platform after the other over one file."""
    with tempfile.TemporaryDirectory(prefix="mec-bench-") as folder:
        return _kill(Path(folder) / "killed.sqlite", 1, kills, choices)


def kill_over_etcd(kills: int, choices: random.Random) -> Survived:
    """Two replicas over one etcd, killed in turn: everybody goes to the other one, and the killed one comes back."""
    with tempfile.TemporaryDirectory(prefix="mec-bench-") as folder, running_cluster(Path(folder)) as cluster:
        cluster.wait_until_up()
        return _kill(cluster.settings(), 2, kills, choices)


def _kill(state: Path | EtcdSettings, replicas: int, kills: int, choices: random.Random) -> Survived:
    platforms = [ServedPlatform(str(state)) for _ in range(replicas)]
    app_instance_id = register_app(platforms[0].rest).split("/")[-2]
    after = uvloop.run(read_revision(platforms[0].grpc))
    clients = [Client(f"client-{number}", app_instance_id) for number in range(CLIENTS)]
    watchers = [Watcher(after) for _ in range(WATCHERS)]
    for each in platforms:
        uvloop.run(_await_revision(each, after))
    for kill in range(kills):
        number = kill % replicas
        platform, life_s = platforms[number], choices.uniform(LEAST_LIFE_S, MOST_LIFE_S)
        uvloop.run(act_until_killed(platform.grpc, platform.kill, life_s, [*clients, *watchers]))
        platforms[number] = ServedPlatform(str(state))
    with ExitStack() as stack:
        for each in platforms:
            stack.enter_context(each)
        listed, up_to = uvloop.run(_settle(platforms, watchers))
    happened = uvloop.run(_read_history(state))
    return judge(clients, watchers, listed, [each for each in happened if each.revision > after], up_to)


def judge(
    clients: Sequence[Client],
    watchers: Sequence[Watcher],
    listed: Sequence[Mapping[str, str]],
    happened: Sequence[Seen],
    up_to: int,
) -> Survived:
    """Compares with what has `happened` by revision `up_to`; `listed` is what each platform has then."""
    acknowledged = {service_id for client in clients for service_id in client.acknowledged.values()}
    found = []
    for watcher in watchers:
        for history in watcher.histories:
            found += complaints(happened, history.seen, history.after, history.up_to)
            there = {each.service_id for each in happened if each.revision <= history.after}
            if history.listed != there:
                found.append(f"listed at {history.after}: {len(history.listed)} of {len(there)}")
        if watcher.came_to < up_to:
            found.append(f"came to {watcher.came_to} of {up_to}")
    return Survived(
        acknowledged=len(acknowledged),
        lost=sum(len(acknowledged - services.keys()) for services in listed),
        doubled=sum(len(services) - len(set(services.values())) for services in listed),
        complaints=found,
        relisted=sum(len(each.histories) - 1 for each in watchers),
    )


async def _settle(
    platforms: Sequence[ServedPlatform], watchers: Sequence[Watcher]
) -> tuple[list[Mapping[str, str]], int]:
    """What each platform lists once all have come to one revision, and the watchers too; and that revision."""
    revision = max([await read_revision(each.grpc) for each in platforms])
    for each in platforms:
        await _await_revision(each, revision)
    await watch_up_to(platforms[0].grpc, revision, watchers)
    return [await list_services(each.grpc) for each in platforms], revision


async def _await_revision(platform: ServedPlatform, revision: int) -> None:
    async def came() -> bool:
        return await read_revision(platform.grpc) >= revision

    await until(came, f"{platform.grpc} does not come to revision {revision}")


async def _read_history(state: Path | EtcdSettings) -> list[Seen]:
    store = await open_store(state, "benchmark")
    try:
        trail = await store.log.history(STREAM, limit=_ALL)
    finally:
        await store.log.close()
    registered = [each for each in reversed(trail) if each.kind == "service.registered"]
    return [Seen(each.revision, ChangeType.ADDED, each.subject, "") for each in registered]
