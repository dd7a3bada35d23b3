"""A plan in words: what every stage and hop costs and how the total comes about."""

from __future__ import annotations

from mec_platform.control_plane.split_revision.cost_model import plan_cost, stage_memory_bytes
from mec_platform.control_plane.split_revision.node_times import describe_load, node_times
from mec_platform.control_plane.split_revision.settings import PlanSettings
from mec_platform.domain.capacity import Snapshot
from mec_platform.domain.split_plan import SplitPlan


def explain_plan(plan: SplitPlan, snapshot: Snapshot, settings: PlanSettings) -> list[str]:
    """Lines for an operator: one per stage and hop, then the terms of the objective."""
    cost, model = plan_cost(plan.stages, snapshot, settings), snapshot.model
    if cost is None or model is None:
        return [f"{plan.describe()}: cannot be costed, the model or a node of the plan is unknown or gone"]
    lines = [f"plan {plan.epoch} for {plan.model}: {plan.describe()}"]
    times = node_times(snapshot)
    source = "gateway"
    for index, stage in enumerate(plan.stages):
        node = snapshot.node(stage.node)
        assert node is not None  # plan_cost found it
        known = index == 0 or snapshot.link(source, stage.node) is not None
        lines.append(f"hop {source} -> {stage.node}: {cost.hop_ms[index]:.2f} ms{'' if known else ' (not measured)'}")
        needed = stage_memory_bytes(stage.layers, model, settings)
        lines.append(
            f"stage {index + 1} on {stage.node} ({'trusted' if node.trusted else 'not trusted'}): blocks {stage.layers}"
            f"{' and head' if index == len(plan.stages) - 1 else ''}, {cost.stage_ms[index]:.2f} ms, "
            f"{needed / 1e6:.1f} of {node.memory_bytes / 1e6:.1f} MB"
        )
        source = stage.node
    for name in dict.fromkeys(plan.nodes):
        lines.append(
            f"times of {name} for {describe_load(snapshot)}: block {times[name].block_s * 1e3:.3f} ms, "
            f"{times[name].source}"
        )
    lines += [
        f"hop {source} -> gateway: {cost.hop_ms[-1]:.2f} ms",
        f"latency {cost.latency_ms:.2f} ms per token: compute {cost.compute_ms:.2f} ms, hops {sum(cost.hop_ms):.2f} ms",
        f"imbalance {cost.imbalance_ms:.2f} ms: the slowest stage takes {cost.bottleneck_ms:.2f} ms, a fair share over "
        f"{len(snapshot.nodes)} nodes is {cost.bottleneck_ms - cost.imbalance_ms:.2f} ms",
        f"exposure {cost.exposure:.2f}: share of blocks on nodes that are not trusted, shallow blocks weigh more",
        f"cost {cost.total_ms:.2f} ms = {settings.alpha:g} x latency + {settings.beta:g} x imbalance "
        f"+ {settings.gamma_ms:g} ms x exposure",
    ]
    return lines
