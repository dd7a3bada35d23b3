"""Sessions go on while everything around them is disturbed, for minutes: every answer is the undisturbed one, nothing hangs, and
nothing is left over.

    MEC_SOAK_SECONDS=3600 MEC_SOAK_SEED=7 pytest -s tests/integration/test_soak.py

plays an hour of the seed; a failure prints the seed and what was done. Rounds of twenty seconds end in a quiet moment, in
which everything must have been let go. Three nodes always live, of which any two have room for the model: so no answer may
fail for any reason. Links and CPU shares are emulated.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import aiohttp
import pytest
import pytest_asyncio

from mec_apps.cli.compile import CompiledFolders
from mec_apps.cli.local_cluster import LocalCluster, NodeOptions
from tests.integration.edge import until
from tests.integration.soak.clients import Clients
from tests.integration.soak.disturbances import PLATFORM, draw_step
from tests.integration.soak.strikes import Strikes
from tests.integration.soak.watch import Watch

pytestmark = [pytest.mark.slow, pytest.mark.soak]

NAMES = ("edge-1", "edge-2", "edge-3", "edge-4", "edge-5")
WITNESS = "edge-1"
"""Is never killed, so that what a node holds can be compared over the whole run."""

CLIENTS = 3
ROUND_S = 20.0
USUAL_S, HOUR_S = 300.0, 3600.0


@pytest_asyncio.fixture
async def cluster(compiled: CompiledFolders, tmp_path: Path) -> AsyncIterator[LocalCluster]:
    nodes = [NodeOptions(name, memory_mib=100) for name in NAMES]
    state, policy = tmp_path / "state.sqlite", tmp_path / "policy.toml"
    policy.write_text("[default.replicas]\nmin = 1\nmax = 2\n")  # chains that are added may stay
    async with LocalCluster(compiled, nodes, cooldown_s=2.0, context=1024, state=state, policy=policy) as cluster:
        await cluster.wait_for_plan()
        yield cluster


async def test_answers_go_on_through_everything(cluster: LocalCluster, tmp_path: Path) -> None:
    await soak(cluster, float(os.environ.get("MEC_SOAK_SECONDS", USUAL_S)), tmp_path)


@pytest.mark.thorough
async def test_answers_go_on_for_an_hour(cluster: LocalCluster, tmp_path: Path) -> None:
    await soak(cluster, HOUR_S, tmp_path)


async def soak(cluster: LocalCluster, seconds: float, folder: Path) -> None:
    """Rounds of disturbances until the time is over. Fails with the seed, what was done, and where the logs are."""
    seed = int(os.environ.get("MEC_SOAK_SEED", time.time_ns() % 100_000))
    done: list[str] = []
    clients, watch = Clients(cluster, CLIENTS, seed), Watch(cluster, list(NAMES))
    try:
        await _soak(cluster, seconds, seed, clients, watch, done)
    except Exception as error:
        for name in (*NAMES, PLATFORM, "gateway"):
            shutil.copy(cluster.log_path(name), folder)
        steps = "\n".join(done)
        raise AssertionError(
            f"MEC_SOAK_SEED={seed}, logs in {folder}, steps:\n{steps}\n{watch.describe()}\n{error!r}"
        ) from error
    finally:
        await clients.drop()
    visits = dict(clients.ended)
    print(f"seed {seed}: {len(done)} lines of steps, visits {visits}\n{watch.describe()}")  # noqa: T201 - for -s


async def _soak(
    cluster: LocalCluster, seconds: float, seed: int, clients: Clients, watch: Watch, done: list[str]
) -> None:
    random, strikes = Random(seed), Strikes(cluster)
    clock = asyncio.get_running_loop().time
    started = clock()
    await until(watch.is_quiet, "all members and a plan")
    await clients.learn()
    async with aiohttp.ClientSession() as http:
        while clock() - started < seconds:
            clients.begin()
            round_began = clock()
            while clock() - round_began < ROUND_S:
                # After the first third the platform lives, so that it can be compared with itself.
                spared = {WITNESS} if clock() - started < seconds / 3 else {WITNESS, PLATFORM}
                step = draw_step(random, NAMES, spared)
                done.append(f"{clock() - started:7.1f} s  {step}")
                for told in await strikes.play(step):
                    done.append(f"{clock() - started:7.1f} s    {told}")
                await watch.check_epochs()
                assert not clients.violations, clients.violations
            await clients.end()
            assert not clients.violations, clients.violations
            await watch.wait_until_quiet()
            watch.check_logs()
            await watch.sample(clock() - started, http)
    watch.check_growth()
