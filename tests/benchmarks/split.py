"""`mec bench split`: the same answer over 1, 2, 3 stage processes on this machine, and what a hop costs."""

from __future__ import annotations

import asyncio
import os
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from mec_apps.cli.compile import ensure_compiled
from mec_apps.cli.local_cluster import LocalCluster, NodeOptions
from mec_apps.split_inference.frames import Frame, FrameKind
from mec_apps.split_inference.link_shaper import LinkShapers
from mec_apps.split_inference.peer_link import LinkPool
from mec_platform.domain.layers import even_ranges
from tests.benchmarks.answers import Answer, ask
from tests.benchmarks.machine import at_most, machine

REPETITIONS = 3
HOP_P50_BOUND_MS = 0.5
STREAM_PROBES = 200
ROW_BYTES = 2304
PAUSE_S = 0.004


def run(stage_counts: Sequence[int], tokens: int) -> dict[str, Any]:
    """A hop is one frame from process to process: gateway to first stage, stage to stage, last stage to gateway."""
    return asyncio.run(_run(stage_counts, tokens))


async def _run(stage_counts: Sequence[int], tokens: int) -> dict[str, Any]:
    nodes = [NodeOptions(f"edge-{i + 1}", threads=os.cpu_count() or 1) for i in range(max(stage_counts))]
    metrics: dict[str, float] = {}
    criteria = []
    async with LocalCluster(ensure_compiled("smollm2", "int4", None), nodes, manual=True) as cluster:
        plan = await cluster.wait_for_plan()
        blocks = plan.stages[-1].layers.stop
        for count in stage_counts:
            ranges = even_ranges(blocks, count)
            await cluster.apply([(node.name, r.start, r.stop) for node, r in zip(nodes, ranges, strict=False)])
            await ask(cluster, 16)
            answers = [await ask(cluster, tokens) for _ in range(REPETITIONS)]
            hops = _hop_ms(answers, count + 1)
            rate = statistics.median(answer.tokens_per_s for answer in answers)
            metrics[f"stages_{count}_tokens_per_s"] = round(rate, 1)
            metrics[f"stages_{count}_compute_ms_per_token"] = round(
                statistics.median(ms for answer in answers for ms in answer.compute_ms[1:]), 3
            )
            metrics[f"stages_{count}_hop_ms_p50"] = round(float(np.percentile(hops, 50)), 3)
            metrics[f"stages_{count}_hop_ms_p99"] = round(float(np.percentile(hops, 99)), 3)
            name = f"stages_{count}_hop_ms_p50"
            criteria.append(at_most(name, metrics[name], HOP_P50_BOUND_MS))
        metrics["stream_ms_p50"] = round(await _stream_ms(str(cluster.facts[nodes[0].name]["grpc"])), 3)
    return {"bench": "split", "machine": machine(), "metrics": metrics, "criteria": criteria}


async def _stream_ms(address: str) -> float:
    """The limit: half a round trip of a row of activations over the same kind of stream, with the pauses of decoding."""
    pool = LinkPool(Frame(FrameKind.HELLO, payload=b"bench"), LinkShapers(), _ignore, _ignore)
    try:
        link = await pool.connect("node", address, timeout_s=5)
        times = []
        for _ in range(STREAM_PROBES):
            times.append(await link.ping(bytes(ROW_BYTES)) or 0.0)
            await asyncio.sleep(PAUSE_S)
    finally:
        await pool.close()
    return statistics.median(times) * 1e3 / 2


def _ignore(_peer: str, _what: object) -> None:
    pass


def _hop_ms(answers: Sequence[Answer], hops: int) -> list[float]:
    """Per token, what was not computing, shared among its hops. The first token is left out: it is the prefill's."""
    return [
        (token - compute) / hops
        for answer in answers
        for token, compute in zip(answer.token_ms[1:], answer.compute_ms[1:], strict=True)
    ]
