"""`mec bench reconfigure`: random live re-splits in the middle of answers; every answer must be the undisturbed one."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import numpy as np

from mec_apps.cli.compile import ensure_compiled
from mec_apps.cli.local_cluster import LocalCluster, NodeOptions
from mec_platform.domain.layers import ranges_from_cuts
from mec_platform.rpc.v1 import control_plane_pb2
from tests.benchmarks.answers import ask
from tests.benchmarks.machine import at_least, at_most, machine

TOKENS = 120
EARLIEST, LATEST = 8, 80
"""Tokens after which a re-split begins: it ends within the answer."""

Stages = list[tuple[str, int, int]]


def run(count: int, seed: int) -> dict[str, Any]:
    """One answer of TOKENS tokens per re-split."""
    return asyncio.run(_run(count, random.Random(seed)))


async def _run(count: int, choices: random.Random) -> dict[str, Any]:
    nodes = [NodeOptions(f"edge-{i}") for i in (1, 2, 3)]
    async with LocalCluster(ensure_compiled("smollm2", "int4", None), nodes, manual=True) as cluster:
        plan = await cluster.wait_for_plan()
        blocks = plan.stages[-1].layers.stop
        current: Stages = [(stage.node, stage.layers.start, stage.layers.stop) for stage in plan.stages]
        reference = (await ask(cluster, TOKENS)).tokens
        identical = lost = 0
        done: list[control_plane_pb2.Reconfiguration] = []
        for _ in range(count):
            current = _other_plan(choices, [node.name for node in nodes], blocks, current)
            tokens, reconfiguration = await _answer_through(cluster, choices.randint(EARLIEST, LATEST), current)
            done.append(reconfiguration)
            identical += tokens == reference
            lost += max(len(reference), len(tokens)) - sum(a == b for a, b in zip(tokens, reference, strict=False))
    pauses = [reconfiguration.pause_ms_max for reconfiguration in done]
    metrics = {
        "reconfigurations": float(count),
        "identical": float(identical),
        "tokens_lost": float(lost),
        "sessions_moved": float(sum(reconfiguration.sessions for reconfiguration in done)),
        "pause_ms_p50": round(float(np.percentile(pauses, 50)), 2),
        "pause_ms_p99": round(float(np.percentile(pauses, 99)), 2),
        "whole_ms_p50": round(float(np.percentile([r.switch_ms for r in done], 50)), 1),
        "moved_bytes_mean": round(float(np.mean([r.moved_bytes for r in done])), 0),
        "replayed_tokens": float(sum(reconfiguration.replayed_tokens for reconfiguration in done)),
    }
    criteria = [
        at_most("tokens_lost", lost, 0),
        at_least("identical", identical, count),
        at_least("sessions_moved", metrics["sessions_moved"], count),
    ]
    return {"bench": "reconfigure", "machine": machine(), "metrics": metrics, "criteria": criteria}


async def _answer_through(
    cluster: LocalCluster, after_tokens: int, stages: Stages
) -> tuple[list[int], control_plane_pb2.Reconfiguration]:
    reached = asyncio.Event()

    def watch(count: int) -> None:
        if count >= after_tokens:
            reached.set()

    async def apply() -> control_plane_pb2.Reconfiguration:
        await reached.wait()
        return await cluster.apply(stages, "benchmark")

    answer, reconfiguration = await asyncio.gather(ask(cluster, TOKENS, watch), apply())
    return answer.tokens, reconfiguration


def _other_plan(choices: random.Random, nodes: list[str], blocks: int, current: Stages) -> Stages:
    """Nodes in random order, as many as chance has it, random cuts; never the plan that is in force."""
    while True:
        chosen = choices.sample(nodes, choices.randint(1, len(nodes)))
        cuts = sorted(choices.sample(range(1, blocks), len(chosen) - 1))
        stages = [(n, r.start, r.stop) for n, r in zip(chosen, ranges_from_cuts(blocks, cuts), strict=True)]
        if stages != current:
            return stages
