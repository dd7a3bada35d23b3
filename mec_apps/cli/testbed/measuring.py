"""Asks a testbed for the numbers that a simulation of it needs, while one lone session is answered."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from itertools import pairwise

from mec_apps.cli.local_cluster import LocalCluster
from mec_apps.cli.testbed.calibration import Measures
from mec_apps.cli.testbed.demand import Asker
from mec_apps.cli.testbed.questions import Questions
from mec_platform.background import BackgroundTasks
from mec_platform.rpc.convert import plan_from_message
from mec_platform.rpc.v1 import control_plane_pb2

ANSWERS = 3
ANSWER_TOKENS = 200
PROMPT_TOKENS = 128
_POLL_S = 0.5


async def measure(cluster: LocalCluster, questions: Questions) -> Measures:
    """Some answers, one after the other; the first one only warms up. Raises CliError where there is no plan."""
    asker = Asker(cluster.inference, questions, time.perf_counter())
    await asker.ask(PROMPT_TOKENS, ANSWER_TOKENS)
    seen: list[control_plane_pb2.Snapshot] = []
    began_s, own_s = time.perf_counter(), time.process_time()
    async with BackgroundTasks() as tasks:
        tasks.start("loads", _follow_loads(cluster, seen))
        answers = [await asker.ask(PROMPT_TOKENS, ANSWER_TOKENS) for _ in range(ANSWERS)]
    tokens = sum(len(answer.came_s) for answer in answers)
    passed_s, own_s = time.perf_counter() - began_s, time.process_time() - own_s
    snapshot = await cluster.snapshot()
    cores = {
        member.name: statistics.fmean(_reported(seen, member.name) or [0.0]) * passed_s / max(tokens, 1)
        for member in snapshot.members
    }
    return Measures(
        snapshot,
        plan_from_message(await cluster.wait_for_plan()),
        cores | {"": own_s / max(tokens, 1)},
        os.cpu_count() or 1,
        statistics.fmean(after - before for answer in answers for before, after in pairwise(answer.came_s)),
    )


async def _follow_loads(cluster: LocalCluster, seen: list[control_plane_pb2.Snapshot]) -> None:
    await asyncio.sleep(2 * _POLL_S)  # the first report is still of the time before
    while True:
        seen.append(await cluster.snapshot())
        await asyncio.sleep(_POLL_S)


def _reported(seen: list[control_plane_pb2.Snapshot], name: str) -> list[float]:
    """Cores that the member kept busy, report by report."""
    return [
        member.load.process_cpu_cores
        for snapshot in seen
        for member in snapshot.members
        if member.name == name and member.load.HasField("process_cpu_cores")
    ]
