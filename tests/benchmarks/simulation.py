"""`mec bench simulate`: what the simulator's cost model says of tokens on three real processes, and what they take.

The prediction is made from the platform's snapshot before the measured answers begin, as a decision would make it.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mec_apps.cli.compile import ensure_compiled
from mec_apps.cli.local_cluster import LocalCluster, NodeOptions
from mec_platform.control_plane.split_revision.cost_model import PlanCost, plan_cost
from mec_platform.control_plane.split_revision.settings import PlanSettings
from mec_platform.domain.capacity import GatewayCapacity, LinkCapacity, NodeCapacity, Snapshot
from mec_platform.domain.layers import even_ranges
from mec_platform.domain.split_plan import Stage
from mec_platform.rpc.convert import hardware_from_message, profile_from_message, shape_from_message
from mec_platform.rpc.v1 import control_plane_pb2
from tests.benchmarks.answers import Answer, ask
from tests.benchmarks.machine import at_most, machine

SESSIONS = (1, 2, 4)
REPETITIONS = 2
LARGEST_ERROR = 0.15

SETTLE_ANSWERS = 4
"""Reports come once a second; after so many answers, estimates are of the plan in force and of its recent runs."""


def run(tokens: int) -> dict[str, Any]:
    """Three stages of ten blocks; each number of concurrent sessions is predicted, then measured."""
    return asyncio.run(_run(tokens))


async def _run(tokens: int) -> dict[str, Any]:
    nodes = [NodeOptions(f"edge-{i}") for i in (1, 2, 3)]
    metrics: dict[str, float] = {}
    criteria = []
    async with LocalCluster(ensure_compiled("smollm2", "int4", None), nodes, manual=True) as cluster:
        plan = await cluster.wait_for_plan()
        stages = tuple(
            Stage(node.name, layers)
            for node, layers in zip(nodes, even_ranges(plan.stages[-1].layers.stop, len(nodes)), strict=True)
        )
        await cluster.apply([(stage.node, stage.layers.start, stage.layers.stop) for stage in stages])
        for sessions in SESSIONS:
            predicted, measured = [], []
            for _ in range(REPETITIONS):
                for _ in range(SETTLE_ANSWERS):
                    await ask(cluster, tokens)
                seen = snapshot_of(await cluster.snapshot())
                cost = predict(seen, stages, sessions, tokens)
                answers = await asyncio.gather(*(ask(cluster, tokens) for _ in range(sessions)))
                predicted.append(cost.latency_ms)
                measured.append(token_ms(answers))
            error = abs(statistics.median(predicted) / statistics.median(measured) - 1)
            name = f"sessions_{sessions}"
            metrics[f"{name}_predicted_ms"] = round(statistics.median(predicted), 2)
            metrics[f"{name}_measured_ms"] = round(statistics.median(measured), 2)
            metrics[f"{name}_predicted_compute_ms"] = round(cost.compute_ms, 2)
            metrics[f"{name}_measured_compute_ms"] = round(
                statistics.median(ms for answer in answers for ms in answer.compute_ms[1:]), 2
            )
            metrics[f"{name}_predicted_hops_ms"] = round(sum(cost.hop_ms), 2)
            metrics[f"{name}_error"] = round(error, 3)
            criteria.append(at_most(f"{name}_error", error, LARGEST_ERROR))
    return {"bench": "simulate", "machine": machine(), "metrics": metrics, "criteria": criteria}


def predict(seen: Snapshot, stages: Sequence[Stage], sessions: int, tokens: int) -> PlanCost:
    """What the cost model says of so many sessions in the middle of their answers."""
    (gateway,) = seen.gateways
    positions = sessions * (PROMPT_POSITIONS + tokens // 2)
    loaded = replace(gateway, sessions=sessions, context_positions=positions)
    cost = plan_cost(stages, replace(seen, gateways=(loaded,)), PlanSettings())
    assert cost is not None
    return cost


PROMPT_POSITIONS = 50
"""About what the question and its template are."""


def token_ms(answers: Sequence[Answer]) -> float:
    """Mean time of each token after the first, as clients see it."""
    return 1e3 * statistics.mean(1 / answer.tokens_per_s for answer in answers)


def snapshot_of(message: control_plane_pb2.Snapshot) -> Snapshot:
    """What the platform sees, as far as costs depend on it."""
    nodes, gateways, links, model = [], [], [], None
    for member in message.members:
        links += [
            LinkCapacity(member.name, link.peer, link.bytes_per_s, link.round_trip_ms / 1e3) for link in member.links
        ]
        if member.role == control_plane_pb2.MEMBER_ROLE_GATEWAY:
            gateways.append(GatewayCapacity(member.name, member.address, 0, 0, 0.0))
            continue
        model = shape_from_message(member.model)
        has_profile = member.HasField("profile")
        nodes.append(
            NodeCapacity(
                name=member.name,
                address=member.address,
                trusted=member.trusted,
                hardware=hardware_from_message(member.hardware),
                memory_bytes=member.memory_bytes,
                block_time_s=member.block_time_us / 1e6,
                head_time_s=member.head_time_us / 1e6,
                prefill_block_time_s_per_row=member.prefill_block_time_us_per_row / 1e6,
                sessions=member.sessions,
                profile=profile_from_message(member.profile) if has_profile else None,
                profile_ratio=member.profile_ratio if has_profile else 1.0,
            )
        )
    return Snapshot(
        now_s=message.now_s,
        model=model,
        nodes=tuple(nodes),
        gateways=tuple(gateways),
        links=tuple(links),
        plan=None,
        lost_nodes=frozenset(),
    )
