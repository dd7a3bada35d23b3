"""`mec bench simulate`: what the simulator says of tokens on three real processes of this machine, and what they take.

Before each prediction one lone session is answered; what nodes report of it, and what processes take of cores, is all
that the simulator is told. It serves as many sessions as are asked next, by the same plan.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Sequence
from typing import Any

from mec_apps.cli.compile import ensure_compiled
from mec_apps.cli.local_cluster import LocalCluster, NodeOptions
from mec_apps.cli.testbed.calibration import Measures, calibrated
from mec_apps.cli.testbed.measuring import measure
from mec_apps.cli.testbed.questions import Questions
from mec_platform.control_plane.split_revision.cost_model import plan_cost
from mec_platform.control_plane.split_revision.settings import PlanSettings
from mec_platform.domain.capacity import GatewayCapacity
from mec_platform.domain.layers import even_ranges
from mec_platform.domain.split_plan import Stage
from mec_platform.scenario.scenario import DemandSpec, DeploymentSpec, NodeSpec, Scenario
from mec_platform.simulation.compare import Comparison
from mec_platform.simulation.controllers import Scheduled
from mec_platform.simulation.engine import Engine
from mec_platform.simulation.world import World
from tests.benchmarks.answers import Answer, ask
from tests.benchmarks.machine import at_most, machine

MODEL = "smollm2"
SESSIONS = (1, 2, 4)
REPETITIONS = 2
LARGEST_ERROR = 0.15

PROMPT_TOKENS = 50
"""About what the question and its template are."""

SIMULATED_S = 20.0


def run(tokens: int) -> dict[str, Any]:
    """Three stages of ten blocks; each number of concurrent sessions is predicted, then measured."""
    return asyncio.run(_run(tokens))


async def _run(tokens: int) -> dict[str, Any]:
    nodes = [NodeOptions(f"edge-{i}") for i in (1, 2, 3)]
    metrics: dict[str, float] = {}
    criteria = []
    compiled = ensure_compiled(MODEL, "int4", None)
    async with LocalCluster(compiled, nodes, manual=True) as cluster:
        plan = await cluster.wait_for_plan()
        stages = tuple(
            Stage(node.name, layers)
            for node, layers in zip(nodes, even_ranges(plan.stages[-1].layers.stop, len(nodes)), strict=True)
        )
        await cluster.apply([(stage.node, stage.layers.start, stage.layers.stop) for stage in stages])
        questions = Questions(compiled.package)
        for sessions in SESSIONS:
            predicted, apart, measured = [], [], []
            for _ in range(REPETITIONS):
                world = world_of(nodes, await measure(cluster, questions), sessions, tokens)
                predicted.append(predict_ms(world, stages))
                apart.append(cost_model_ms(world, stages, sessions, tokens))
                measured.append(token_ms(await asyncio.gather(*(ask(cluster, tokens) for _ in range(sessions)))))
            error = abs(statistics.median(predicted) / statistics.median(measured) - 1)
            name = f"sessions_{sessions}"
            metrics[f"{name}_predicted_ms"] = round(statistics.median(predicted), 2)
            metrics[f"{name}_measured_ms"] = round(statistics.median(measured), 2)
            metrics[f"{name}_error"] = round(error, 3)
            metrics[f"{name}_cost_model_ms"] = round(statistics.median(apart), 2)
            criteria.append(at_most(f"{name}_error", error, LARGEST_ERROR))
    return {"bench": "simulate", "machine": machine(), "metrics": metrics, "criteria": criteria}


def world_of(nodes: Sequence[NodeOptions], measures: Measures, sessions: int, tokens: int) -> World:
    """The simulator's world of these processes, with so many sessions at a time."""
    demand = DemandSpec(streams=sessions, prompt_tokens=PROMPT_TOKENS, answer_tokens=tokens)
    specs = tuple(NodeSpec(node.name) for node in nodes)
    scenario = Scenario(specs, (DeploymentSpec(MODEL),), duration_s=SIMULATED_S)
    return World(calibrated(World(scenario, {}), measures, demand, threads=nodes[0].threads), {})


def predict_ms(world: World, stages: Sequence[Stage]) -> float:
    """Mean time per token that the simulator comes to."""
    comparison = Comparison.of(world, {})
    plans = {MODEL: tuple(stages)}
    controller = Scheduled.fixed(plans, "the plan that is measured")
    engine = Engine(world, comparison.settings, comparison.requests, comparison.monitoring, controller)
    flows = engine.run("fixed").deployments[0].flows
    return 1e3 * sum(flow.tpot_s * flow.tokens for flow in flows) / sum(flow.tokens for flow in flows)


def cost_model_ms(world: World, stages: Sequence[Stage], sessions: int, tokens: int) -> float:
    """What the cost model says, which decisions are made by: every node has a machine of its own."""
    (deployment,) = world.scenario.deployments
    load = GatewayCapacity("gateway", "", sessions, sessions * (PROMPT_TOKENS + tokens // 2), 0.0)
    cost = plan_cost(stages, world.snapshot(deployment, 0.0, world.nodes_of(deployment), (load,)), PlanSettings())
    assert cost is not None  # all nodes are alive
    return cost.latency_ms


def token_ms(answers: Sequence[Answer]) -> float:
    """Mean time of each token after the first, as clients see it."""
    return 1e3 * statistics.mean(1 / answer.tokens_per_s for answer in answers)
